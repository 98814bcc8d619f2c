"""Histograms and thresholds, on distributions whose answer is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retinart.calib.histogram import BINS, Histogram
from retinart.calib.methods import entropy, mse, percentile, threshold
from retinart.calib.settings import METHODS
from retinart.engine.errors import CheckFailed


def filled(*values: npt.NDArray[np.floating[Any]]) -> Histogram:
    histogram = Histogram()
    for part in values:
        histogram.add(part.astype(np.float32))
    return histogram


def test_histogram_does_not_depend_on_the_order_of_magnitudes() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.normal(0, 1, 50_000), rng.normal(0, 100, 50_000)
    growing, falling = filled(small, large), filled(large, small)
    for histogram in (growing, falling):
        assert histogram.counts.sum() == 100_000
        assert histogram.peak == pytest.approx(np.abs(large).max())
        assert histogram.upper >= histogram.peak
    assert percentile(growing) == pytest.approx(percentile(falling), rel=0.01)


def test_histogram_counts_zeros_apart_and_survives_json() -> None:
    histogram = filled(np.zeros(100), np.array([0.0, 1.0, -2.0]))
    assert (histogram.zeros, histogram.counts.sum(), histogram.peak) == (101, 2, 2.0)
    again = Histogram.from_dict(json.loads(json.dumps(histogram.to_dict())))
    assert np.array_equal(again.counts, histogram.counts)
    assert (again.upper, again.zeros) == (histogram.upper, 101)
    assert threshold(filled(np.zeros(5)), "entropy") == 0.0


def test_nan_is_refused() -> None:
    with pytest.raises(CheckFailed, match="NaN or infinite"):
        filled(np.array([1.0, np.nan]))


def test_uniform_values_are_not_clipped() -> None:
    """Of a flat distribution every method keeps nearly all: clipping costs more than it saves."""
    histogram = filled(np.random.default_rng(1).uniform(-3, 3, 200_000))
    for method in METHODS:
        assert threshold(histogram, method) == pytest.approx(3.0, rel=0.02), method


def test_an_outlier_is_clipped_by_all_but_minmax() -> None:
    rng = np.random.default_rng(2)
    histogram = filled(rng.normal(0, 1, 500_000), np.array([60.0]))
    assert threshold(histogram, "minmax") == 60.0
    assert percentile(histogram) == pytest.approx(3.89, abs=0.1)  # two-sided normal quantile
    assert 8 < mse(histogram) < 40  # a square weighs the one far value heavily
    assert 2 < entropy(histogram) < 8


def test_mse_is_the_best_of_a_direct_search() -> None:
    values = np.random.default_rng(3).standard_t(3, 100_000).astype(np.float32)
    histogram = filled(values)

    def error(limit: float) -> float:
        step = limit / 127
        return float(((np.clip(np.round(values / step), -127, 127) * step - values) ** 2).mean())

    best = min(error(limit) for limit in np.linspace(0.01, 1, 200) * histogram.peak)
    assert error(mse(histogram)) <= best * 1.05


def test_entropy_follows_the_published_rule() -> None:
    """Against the rule written down plainly, bin by bin."""
    values = np.random.default_rng(4).laplace(0, 1, 20_000).astype(np.float32)
    histogram = filled(values)
    counts = histogram.counts.astype(float)
    chosen = round(entropy(histogram) * BINS / histogram.upper)
    scores = {}
    for bins in (*range(128, BINS + 1, 37), chosen):
        reference = counts[:bins].copy()
        reference[-1] += counts[bins:].sum()
        merged = np.zeros(bins)
        for level in range(128):
            members = [i for i in range(bins) if i * 128 // bins == level]
            full = [i for i in members if counts[i] > 0]
            for i in full:
                merged[i] = counts[members].sum() / len(full)
        p, q = reference / reference.sum(), merged / merged.sum()
        if ((p > 0) & (q == 0)).any():
            q = np.maximum(q, 1e-10)
        scores[bins] = float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))
    assert min(scores, key=scores.__getitem__) == chosen
