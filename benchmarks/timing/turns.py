"""Engines that take turns on the same images, and what each of them did."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.workers import Run, Turn, Worker
from retinart.engine.common.progress import Progress
from retinart.engine.model.info import Compute

STAGES = ("total", "decode", "resize", "copy", "infer", "nms", "results")
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One of the settings that models are measured at: see `BenchmarkSettings`."""

    imgsz: int | None
    batch: int
    streams: int

    def name(self, path: Path, compute: Compute) -> str:
        """What to call a model in this case."""
        parts = [path.name]
        parts += [f"in {compute}"] if compute != "fp32" else []
        parts += [f"at {self.imgsz}"] if self.imgsz else []
        parts += [f"batch {self.batch}"] if self.batch > 1 else []
        parts += [f"{self.streams} streams"] if self.streams > 1 else []
        return " ".join(parts)


@dataclass(kw_only=True)
class Column:
    """What one worker did.

    Attributes:
        sizes: (height, width) that the network gets for each image.
        first_ms: of the first inference.
    """

    worker: Worker
    sizes: list[tuple[int, int]]
    first_ms: float
    turns: list[Turn] = field(default_factory=list)

    def figures(self, case: Case) -> dict[str, Any]:
        """Plain JSON types."""
        at_once = case.batch * case.streams
        times = {
            stage: [round(run.get(stage, 0.0) / case.batch, 4) for run in self._runs()]
            for stage in STAGES
        }
        found = [sum(len(d) for d in run.found) for turn in self.turns for run in turn.runs]
        return {
            "input": list(Counter(self.sizes).most_common(1)[0][0]),
            "inputs": len(set(self.sizes)),
            "ms": {stage: _percentiles(ms) for stage, ms in times.items()},
            "runs_ms": times,
            "images_per_second": 1000 * at_once / float(np.mean(self.turns_ms())),
            "detections": float(np.mean(found)) / case.batch,
            "load_ms": self.worker.load_ms(),
            "first_ms": self.first_ms,
            "peak_mib": self.worker.peak_mib(),
        }

    def turns_ms(self) -> list[float]:
        """Milliseconds of each turn."""
        return [turn.ms for turn in self.turns]

    def _runs(self) -> list[dict[str, float]]:
        return [stages(run) for turn in self.turns for run in turn.runs]


def interleave(columns: Sequence[Column], case: Case, repeats: int, images: int) -> list[float]:
    """Fill the columns' turns; the reference's times between the repeats come back."""
    progress = Progress()

    def batches(image: int) -> list[list[int]]:
        numbers = itertools.count(image)
        return [[next(numbers) % images for _ in range(case.batch)] for _ in range(case.streams)]

    for column in columns:  # warm-up: each new size costs a runtime time
        for image in range(images if len(set(column.sizes)) > 1 else min(2, images)):
            column.worker.turn(batches(image))
    reference = [machine.reference() for _ in range(3)]
    for repeat, image, forward in statistics.turns(repeats, images):
        for column in columns if forward else columns[::-1]:
            time.sleep(machine.REST_S)
            column.turns.append(column.worker.turn(batches(image)))
        progress.update(repeat * images + image + 1, repeats * images, "rounds")
        if image == images - 1:
            reference += [machine.reference() for _ in range(3)]
    return reference


def stages(run: Run) -> dict[str, float]:
    """A run's milliseconds under our names of the stages, whoever ran."""
    ms = run.ms
    if "backbone" not in ms:
        return ms
    return {
        "total": ms["total"],
        "decode": ms["decode"],
        "resize": ms["convert"] + ms["transform"],
        "infer": ms["backbone"] + ms["head"],
        "nms": ms["rest"],
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    found = np.percentile(values, PERCENTILES)
    return {f"p{p}": float(v) for p, v in zip(PERCENTILES, found, strict=True)}
