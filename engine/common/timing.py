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

    def medians(self) -> dict[StageName, float]:
        """The median of each stage, in milliseconds."""
        return {stage: float(np.median(values)) for stage, values in self.ms.items()}
