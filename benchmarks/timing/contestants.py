"""Contestants of a benchmark, each in a process of its own with its own threads and memory.

So a contestant can slow another one only while it runs, and only one runs at a time. Its process
decodes the images before each round.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.media.images import Image, read_image
from retinart.engine.model.info import Compute
from retinart.engine.runtime.options import RuntimeChoice

_MOST_STREAMS = 64


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a contestant.

    Attributes:
        ms: milliseconds by stage, under the names in `results.STAGES`. `total` is around all of
            them but `decode`, which is reading the images' files before the call.
        found: the detections of each image, in its pixels.
    """

    ms: dict[str, float]
    found: tuple[Detections, ...]


@dataclass(frozen=True, kw_only=True)
class Round:
    """Calls at once, each in a thread.

    Attributes:
        calls: in the order of their batches.
        ms: from the start of the first call to the end of the last one.
    """

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
    """Our detector as a contestant.

    Args:
        model: an exported file or an engine.
        threads, runtime, compute: see `Detector`.
        imgsz: shorter side, for files with dynamic sizes; None takes the file's.
    """

    def __init__(
        self,
        model: Path,
        *,
        threads: int,
        runtime: RuntimeChoice = "auto",
        compute: Compute = "fp32",
        imgsz: int | None = None,
    ) -> None:
        self._detector = Detector(
            model,
            runtime=runtime,
            compute=compute,
            threads=threads,
            imgsz=imgsz,
            check=False,  # the self-test would count as loading
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
        return Call(ms={stage: sum(ms) for stage, ms in clock.ms.items()}, found=tuple(found))


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
        timed = zip(calls, decode, strict=True)
        return Round(calls=tuple(replace(c, ms={**c.ms, "decode": d}) for c, d in timed), ms=ms)

    def peak_mib(self) -> float:
        """The most memory that this process has held, in MiB, libraries included.

        `getrusage` would also count what the parent process held when it started this one.
        """
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024
