"""Where the milliseconds go, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class StageClock:
    """Durations by stage. One thread at a time has a clock."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block under a stage's name."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Count a duration under a stage's name."""
        self.ms.setdefault(stage, []).append(1000 * seconds)

    def rows(self) -> list[tuple[str, int, float, float, float]]:
        """(stage, count, median ms, 95th percentile ms, share of the total time) a stage."""
        total = sum(sum(v) for v in self.ms.values()) or 1.0
        return [
            (
                stage,
                len(v),
                float(np.median(v)),
                float(np.percentile(v, 95)),
                sum(v) / total,
            )
            for stage, v in self.ms.items()
        ]

    def table(self) -> str:
        """The rows as text, for people."""
        lines = [f"{'stage':<10}{'count':>7}{'p50 ms':>10}{'p95 ms':>10}{'share':>8}"]
        lines += [
            f"{stage:<10}{count:>7}{p50:>10.2f}{p95:>10.2f}{share:>8.1%}"
            for stage, count, p50, p95, share in self.rows()
        ]
        return "\n".join(lines)
