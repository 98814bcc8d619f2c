"""Figures of a running job in a fixed amount of memory: times by stage, and their percentiles."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

from retinart.engine.common.table import Table
from retinart.engine.common.timing import PARTS_OF_INFER, StageClock, StageName

_LOWEST = 1e-3  # ms
_STEP = 1.02  # a bin's width: a percentile is within 1% of the true one
_BINS = math.ceil(math.log(1e7 / _LOWEST, _STEP))  # up to 10,000 s
_LOG = math.log(_STEP)
PERCENTILES = (50, 95, 99)


class Times:
    """A histogram of durations; its size does not depend on how many there are.

    Attributes:
        count, total_ms, max_ms: of all durations, exact.
    """

    def __init__(self) -> None:
        self.count, self.total_ms, self.max_ms = 0, 0.0, 0.0
        self._bins = [0] * (_BINS + 1)

    def add(self, ms: float) -> None:
        """Count a duration in ms."""
        place = int(math.log(ms / _LOWEST) / _LOG) if ms > _LOWEST else 0
        self._bins[min(place, _BINS)] += 1
        self.count += 1
        self.total_ms += ms
        self.max_ms = max(self.max_ms, ms)

    def percentile(self, percent: float) -> float:
        """The duration in ms, within 1%, that this share of them does not exceed; NaN of none."""
        if not self.count:
            return math.nan
        left = max(1, math.ceil(self.count * percent / 100))
        for place, n in enumerate(self._bins):
            left -= n
            if left <= 0:
                return float(min(_LOWEST * _STEP ** (place + 0.5), self.max_ms))
        return self.max_ms

    def to_json(self) -> dict[str, Any]:
        """Count, percentiles and maximum, in ms."""
        values = {f"p{p}": _ms(self.percentile(p)) for p in PERCENTILES if self.count}
        return {"count": self.count, **values, "max": _ms(self.max_ms)}


class StageTimes:
    """Durations by stage, from any thread."""

    def __init__(self) -> None:
        self._times: dict[StageName, Times] = {}
        self._lock = threading.Lock()

    def add(self, stage: StageName, seconds: float) -> None:
        """Count one item's time in a stage."""
        with self._lock:
            self._times.setdefault(stage, Times()).add(1000 * seconds)

    def add_parts_of_infer(self, clock: StageClock) -> None:
        """Count what a clock has measured within the stage "infer"."""
        for stage, values in clock.ms.items():
            for ms in values:
                self.add(PARTS_OF_INFER[stage], ms / 1000)

    def stages(self) -> dict[StageName, Times]:
        """A copy of the times by stage."""
        with self._lock:
            return dict(self._times)


def table(stages: Mapping[StageName, Times], seconds: float) -> str:
    """Stages as text, for people.

    `busy` is the share of `seconds` that a stage was at work, above 1 where it had several steps.
    """
    rows = []
    for name, t in stages.items():
        busy = t.total_ms / 1000 / seconds if seconds else 0.0
        values = (f"{t.percentile(p):.2f}" for p in PERCENTILES)
        rows.append((name, t.count, *values, f"{busy:.1%}"))
    head = ("stage", "count", *(f"p{p} ms" for p in PERCENTILES), "busy")
    return Table(head=head, rows=rows).text()


def _ms(value: float) -> float:
    return round(value, 3)
