"""Contestants that take turns on the same images, and the times of each."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.contestants import Booth, Round
from retinart.benchmarks.timing.results import STAGES, Percentiles
from retinart.benchmarks.timing.setting import Setting
from retinart.benchmarks.timing.worker import Worker
from retinart.engine.common.progress import Progress


class Entrant:
    """A contestant in its process, and what it has done.

    Args:
        worker: the process.

    Attributes:
        sizes: the network input's (height, width) for each image.
        rounds: that count.
    """

    def __init__(self, worker: Worker[Booth]) -> None:
        self._worker = worker
        self._load_ms, self.sizes = self._worker.call(Booth.opened)
        self._first_ms = self.play([[0]]).calls[0].ms["total"]
        self.rounds = list[Round]()

    def play(self, batches: Sequence[Sequence[int]]) -> Round:
        """Run on batches of images, given by index, all at once."""
        return self._worker.call(partial(Booth.play, batches=batches))

    def times_as_fast_as(self, other: Entrant) -> statistics.Estimate:
        """Over the pairs of rounds."""
        slow, fast = ([r.ms for r in entrant.rounds] for entrant in (other, self))
        return statistics.median_of_ratios(slow, fast)

    def times(self, setting: Setting) -> dict[str, Any]:
        """The fields of `results.Times`."""
        calls = [call for one in self.rounds for call in one.calls]
        runs = {s: tuple(round(c.ms.get(s, 0.0) / setting.batch, 4) for c in calls) for s in STAGES}
        seconds = float(np.mean([one.ms for one in self.rounds])) / 1000
        found = float(np.mean([sum(map(len, call.found)) for call in calls]))
        return {
            "imgsz": setting.imgsz,
            "input": Counter(self.sizes).most_common(1)[0][0],
            "inputs": len(set(self.sizes)),
            "ms": {stage: Percentiles.of(ms) for stage, ms in runs.items()},
            "runs_ms": runs,
            "images_per_second": setting.batch * setting.streams / seconds,
            "detections": found / setting.batch,
            "load_ms": self._load_ms,
            "first_ms": self._first_ms,
            "peak_mib": self._worker.call(Booth.peak_mib),
        }


def take_turns(
    entrants: Sequence[Entrant], setting: Setting, *, repeats: int, images: int
) -> list[float]:
    """Fill the entrants' rounds.

    Returns:
        Times of the reference workload between the repeats.
    """
    progress = Progress()

    def batches(image: int) -> list[list[int]]:
        numbers = itertools.count(image)
        return [[next(numbers) % images for _ in range(setting.batch)]
                for _ in range(setting.streams)]  # fmt: skip

    for entrant in entrants:  # warm-up, because a runtime prepares each new size
        for image in range(images if len(set(entrant.sizes)) > 1 else min(2, images)):
            entrant.play(batches(image))
    reference = [machine.reference() for _ in range(3)]
    for repeat, image, forward in statistics.turns(repeats, images):
        for entrant in entrants if forward else entrants[::-1]:
            time.sleep(machine.REST_S)
            entrant.rounds.append(entrant.play(batches(image)))
        progress.update(repeat * images + image + 1, repeats * images, "rounds")
        if image == images - 1:
            reference += [machine.reference() for _ in range(3)]
    return reference
