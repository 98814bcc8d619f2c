"""Contestants that take turns on the same images, each in a process of its own.

Each has its own threads and memory, so it can slow another one only while it runs, and only one
runs at a time. Its process decodes the images before each round.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.results import STAGES, Percentiles
from retinart.benchmarks.timing.settings import Setting
from retinart.benchmarks.timing.worker import Worker
from retinart.engine.common.progress import Progress
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.keep.rules import Keep
from retinart.engine.media.images import Image, read_image
from retinart.engine.model.info import Compute
from retinart.engine.runtime.options import RuntimeChoice

_MOST_STREAMS = 64


@dataclass(frozen=True)
class Call:
    """One call of a contestant.

    Attributes:
        ms: milliseconds by stage. `total` is around all of them but `decode`, which is reading the
            images' files before the call.
        found: the detections of each image, in its pixels.
    """

    ms: dict[str, float]
    found: tuple[Detections, ...]


@dataclass(frozen=True)
class Round:
    """Calls at once, each in a thread, and the ms from the first start to the last end."""

    calls: tuple[Call, ...]
    ms: float


class Contestant(Protocol):
    """A detector that is timed."""

    def size(self, image: Image) -> tuple[int, int]:
        """(height, width) of the network's input for an image (H, W, 3) uint8 BGR."""

    def run(self, images: Sequence[Image]) -> Call:
        """Detect on a batch of images, each (H, W, 3) uint8 BGR. Peers take one image only."""


Recipe = Callable[[], Contestant]  # picklable: it goes to the contestant's process


class OurDetector:
    """Our detector as a contestant; see `Detector` for the arguments."""

    def __init__(
        self,
        model: Path,
        *,
        threads: int,
        runtime: RuntimeChoice = "auto",
        compute: Compute = "fp32",
        imgsz: int | None = None,
        conf: float | None = None,
        keep: Keep | None = None,
    ) -> None:
        self._detector = Detector(
            model,
            runtime=runtime,
            compute=compute,
            threads=threads,
            imgsz=imgsz,
            conf=conf,
            keep=keep,
            check=False,  # it would count as loading
            cache=False,  # memory and times are of a model that was compiled now
        )

    def size(self, image: Image) -> tuple[int, int]:
        """See `Contestant`."""
        rule = self._detector.info.resize
        return rule.canvas_for([rule.fit(*image.shape[:2])])

    def run(self, images: Sequence[Image]) -> Call:
        """See `Contestant`."""
        clock = StageClock()
        with clock("total"):
            found = self._detector(images, clock=clock)
        return Call({stage: sum(ms) for stage, ms in clock.ms.items()}, tuple(found))


class Booth:
    """What a contestant's process holds: the contestant and the names of the images.

    Args:
        recipe: makes the contestant.
        images: files that it runs on.
        threads: of OpenCV, which most contestants use.
    """

    def __init__(self, recipe: Recipe, images: Sequence[Path], threads: int) -> None:
        cv2.setNumThreads(threads)
        start = time.perf_counter()
        self._contestant = recipe()
        self._load_ms = 1000 * (time.perf_counter() - start)
        self._images, self._threads = images, ThreadPoolExecutor(_MOST_STREAMS)

    def opened(self) -> tuple[float, list[tuple[int, int]]]:
        """Milliseconds that loading took, and the input's (height, width) for each image."""
        sizes = [self._contestant.size(read_image(path)) for path in self._images]
        return self._load_ms, sizes

    def play(self, batches: Sequence[Sequence[int]]) -> Round:
        """Run on batches of images, given by index, all at once."""
        read, decode = [], []
        for batch in batches:
            start = time.perf_counter()
            read.append([read_image(self._images[i]) for i in batch])
            decode.append(1000 * (time.perf_counter() - start))
        run = self._contestant.run
        start = time.perf_counter()
        calls = [run(read[0])] if len(read) == 1 else list(self._threads.map(run, read))
        ms = 1000 * (time.perf_counter() - start)
        for call, decode_ms in zip(calls, decode, strict=True):
            call.ms["decode"] = decode_ms
        return Round(tuple(calls), ms)

    def peak_mib(self) -> float:
        """The most memory that this process has held, in MiB, libraries included.

        `getrusage` would also count what the parent process held when it started this one.
        """
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024


class Entrant:
    """A contestant in its process, and what it has done.

    Attributes:
        sizes: the network input's (height, width) for each image.
        rounds: that count.
    """

    def __init__(self, worker: Worker[Booth]) -> None:
        self._worker, self.rounds = worker, list[Round]()
        self._load_ms, self.sizes = worker.call(Booth.opened)
        self._first_ms = self.play([[0]]).calls[0].ms["total"]

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
    """Fill the entrants' rounds; times of the reference workload between the repeats."""
    progress = Progress()

    def batches(image: int) -> list[list[int]]:
        numbers = (i % images for i in itertools.count(image))
        return [list(itertools.islice(numbers, setting.batch)) for _ in range(setting.streams)]

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
