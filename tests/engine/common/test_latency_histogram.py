"""Percentiles from a histogram of fixed size."""

from __future__ import annotations

import numpy as np
import pytest

from retinart.engine.common.latency_histogram import StageTimes, Times, table
from retinart.engine.common.timing import StageClock


@pytest.mark.parametrize("scale", [0.01, 1.0, 500.0])
def test_percentiles_are_within_a_percent(scale: float) -> None:
    values = np.random.default_rng(0).lognormal(0, 1, 5000) * scale
    times = Times()
    for v in values:
        times.add(float(v))
    for p in (50, 95, 99):
        true = np.percentile(values, p, method="inverted_cdf")
        assert times.percentile(p) == pytest.approx(true, rel=0.0105)
    assert times.count == 5000 and times.max_ms == values.max()
    assert times.total_ms == pytest.approx(values.sum())


def test_edges() -> None:
    times = Times()
    assert np.isnan(times.percentile(50)) and times.to_json() == {"count": 0, "max": 0.0}
    times.add(0.0)
    assert times.percentile(99) == 0.0
    times.add(1e12)
    assert times.percentile(50) < 0.0011 and times.percentile(99) <= 1e12


def test_stages() -> None:
    stages, clock = StageTimes(), StageClock()
    with clock("nms"):
        pass
    stages.add("decode", 0.004)
    stages.add_parts_of_infer(clock)
    assert list(stages.stages()) == ["decode", "infer: nms"]
    lines = table(stages.stages(), 0.010).splitlines()
    assert lines[0].split() == ["stage", "count", "p50", "ms", "p95", "ms", "p99", "ms", "busy"]
    assert lines[1].split() == ["decode", "1", "3.97", "3.97", "3.97", "40.0%"]  # within 1%
