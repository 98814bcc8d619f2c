"""The stages that are timed, and a clock that keeps each one's milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np

# Every stage that anything times, in the order of tables. mypy refuses any other name.
StageName = Literal[
    "total",  # from an image to its detections
    "decode",  # a file's frame, read and decoded into BGR
    "receive",  # a live source's frame, waited for and decoded
    "resize",  # images to the network's size
    "infer",  # the runtime's part; in a stream the whole of inference, whose parts follow
    "infer: copy",
    "infer: infer",
    "infer: nms",
    "infer: results",
    "copy",  # a batch into page-locked memory, which a GPU reads
    "nms",  # NMS, where the runtime's part does not include it
    "results",  # boxes back into the images' pixels
    "track",
    "draw",
    "write",
]
STAGES: tuple[StageName, ...] = get_args(StageName)
# What a stream calls the stages within its stage "infer".
PARTS_OF_INFER: Mapping[StageName, StageName] = {
    "copy": "infer: copy",
    "infer": "infer: infer",
    "nms": "infer: nms",
    "results": "infer: results",
}
TimeStage = Callable[[StageName, float], None]  # told a stage and its seconds


class StageClock:
    """Durations by stage. Use it from one thread at a time."""

    def __init__(self) -> None:
        self.ms: dict[StageName, list[float]] = {}

    @contextmanager
    def __call__(self, stage: StageName) -> Iterator[None]:
        """Time a block as a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: StageName, seconds: float) -> None:
        """Add a duration to a stage."""
        self.ms.setdefault(stage, []).append(1000 * seconds)

    def rows(self) -> list[tuple[StageName, int, float, float, float]]:
        """For each stage (stage, count, median ms, 95th percentile ms, share of the total)."""
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
        """The rows as text."""
        lines = [f"{'stage':<10}{'count':>7}{'p50 ms':>10}{'p95 ms':>10}{'share':>8}"]
        lines += [
            f"{stage:<10}{count:>7}{p50:>10.2f}{p95:>10.2f}{share:>8.1%}"
            for stage, count, p50, p95, share in self.rows()
        ]
        return "\n".join(lines)
