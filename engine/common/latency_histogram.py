"""Times by stage of a running job, and their percentiles, in a fixed amount of memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from retinart.engine.common.table import Table
from retinart.engine.common.timing import PARTS_OF_INFER, StageClock, StageName

_LOWEST = 1e-3  # ms
_STEP = 1.02  # ratio of neighbouring bins: a percentile is within 1% of the true one
_BINS = math.ceil(math.log(1e7 / _LOWEST, _STEP))  # up to 10,000 s
_LOG = math.log(_STEP)
PERCENTILES = (50, 95, 99)


class Times:
    """A histogram of durations. Its size does not depend on their number.

    Attributes:
        count, total_ms, max_ms: exact values over all durations.
    """

    def __init__(self) -> None:
        self.count, self.total_ms, self.max_ms = 0, 0.0, 0.0
        self._bins = [0] * (_BINS + 1)

    def add(self, ms: float) -> None:
        """Count a duration in ms."""
        index = int(math.log(ms / _LOWEST) / _LOG) if ms > _LOWEST else 0
        self._bins[min(index, _BINS)] += 1
        self.count += 1
        self.total_ms += ms
        self.max_ms = max(self.max_ms, ms)

    def percentile(self, percent: float) -> float:
        """The percentile in ms, within 1%; NaN if there are no durations."""
        if not self.count:
            return math.nan
        left = max(1, math.ceil(self.count * percent / 100))
        for index, n in enumerate(self._bins):
            left -= n
            if left <= 0:
                return float(min(_LOWEST * _STEP ** (index + 0.5), self.max_ms))
        return self.max_ms

    def counts_below(self, limits: Sequence[float]) -> list[int]:
        """How many durations are at most each of these, in ms and rising; limits within 2%."""
        counts, below, index = [], 0, 0
        for limit in limits:
            while index <= _BINS and _LOWEST * _STEP**index < limit:
                below += self._bins[index]
                index += 1
            counts.append(min(below, self.count))
        return counts

    def to_json(self) -> dict[str, Any]:
        """Count, percentiles and maximum, in ms."""
        values = {f"p{p}": _ms(self.percentile(p)) for p in PERCENTILES if self.count}
        return {"count": self.count, **values, "max": _ms(self.max_ms)}


class StageTimes:
    """Durations by stage. Any thread may add to them."""

    def __init__(self) -> None:
        self._times: dict[StageName, Times] = {}
        self._lock = threading.Lock()

    def add(self, stage: StageName, seconds: float) -> None:
        """Count one item's time in a stage."""
        with self._lock:
            self._times.setdefault(stage, Times()).add(1000 * seconds)

    def add_parts_of_infer(self, clock: StageClock) -> None:
        """Add the durations of a clock that measured within the stage "infer"."""
        for stage, values in clock.ms.items():
            for ms in values:
                self.add(PARTS_OF_INFER[stage], ms / 1000)

    def stages(self) -> dict[StageName, Times]:
        """A copy of the times by stage."""
        with self._lock:
            return dict(self._times)


def table(stages: Mapping[StageName, Times], seconds: float) -> str:
    """Stages as text.

    `busy` is the stage's work as a share of `seconds`. It exceeds 1 when steps overlap in a stage.
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
