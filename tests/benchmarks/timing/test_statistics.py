"""Medians, ratios and their intervals, and the order of turns."""

from __future__ import annotations

import numpy as np
import pytest

from retinart.benchmarks.timing import statistics


def test_turns_alternate() -> None:
    turns = list(statistics.turns(4, 3))
    assert [t[:2] for t in turns] == [(r, i) for r in range(4) for i in range(3)]
    for image in range(3):
        assert sum(first for _, i, first in turns if i == image) == 2
    assert [first for _, _, first in statistics.turns(1, 4)] == [True, False, True, False]


def test_ratio_withstands_drift() -> None:
    """A machine that grows slower by the pair leaves the ratio of pairs alone."""
    drift = np.linspace(1, 3, 30)
    found = statistics.median_of_ratios(20 * drift, 10 * drift)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    wide = statistics.ratio_of_medians(20 * drift, 10 * drift)
    assert wide.value == pytest.approx(2)


def test_interval_holds_the_median() -> None:
    values = np.random.default_rng(0).normal(100, 10, 200)
    found = statistics.median(values)
    assert found.low < found.value < found.high
    assert found.high - found.low < 6
    assert statistics.median(values) == found  # the same every time


def test_spread() -> None:
    assert statistics.spread([10.0] * 5) == 0
    assert statistics.spread([8, 9, 10, 11, 12]) == pytest.approx(0.32)
