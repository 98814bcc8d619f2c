"""Engines in processes of their own, that run images when asked.

Every process holds one engine with its own threads and its own memory, so neither can slow the
other except by running, and only one runs at a time. Images are decoded there, before the run.
"""

from __future__ import annotations

import multiprocessing
import re
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.errors import RetinartError
from retinart.engine.media.images import Image, read_image
from retinart.engine.model.info import Compute
from retinart.engine.runtime.options import RuntimeChoice


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of an engine.

    Attributes:
        ms: milliseconds by stage; `total` is measured around all of them but `decode`, which is
            reading the images' files, before the call.
        found: the detections of each image, in its pixels; nothing for engines that stop before.
    """

    ms: dict[str, float]
    found: tuple[Detections, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Calls of an engine at once, a thread each.

    Attributes:
        runs: one a call.
        ms: from the first call's start to the last one's end.
    """

    runs: tuple[Run, ...]
    ms: float


class Engine(Protocol):
    """What a worker runs."""

    def size(self, image: Image) -> tuple[int, int]:
        """(height, width) that the network gets for an image (H, W, 3) uint8 BGR."""

    def run(self, images: Sequence[Image]) -> Run:
        """Run on a batch of images, each (H, W, 3) uint8 BGR. Peers take one only."""


class Recipe(Protocol):
    """How to open an engine: small, and sent to the worker's process."""

    def open(self) -> Engine: ...


@dataclass(frozen=True, kw_only=True)
class Retinart:
    """Our detector.

    Attributes:
        model: an exported file or an engine.
        runtime: see `Detector`.
        compute: see `Detector`.
        imgsz: shorter side, for files with dynamic sizes; None takes the file's.
    """

    model: Path
    threads: int
    runtime: RuntimeChoice = "auto"
    compute: Compute = "fp32"
    imgsz: int | None = None

    def open(self) -> Engine:
        return _Retinart(self)


class Worker:
    """A process with an engine in it. Use it as a context manager.

    Args:
        recipe: makes the engine, in the new process.
        images: files that are read there.
        threads: of OpenCV, for engines that use it.
    """

    def __init__(self, recipe: Recipe, images: Sequence[Path], *, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, recipe, list(images), threads), daemon=True
        )
        self._process.start()
        theirs.close()

    def size(self, image: int) -> tuple[int, int]:
        """(height, width) that the network gets for the image of this index."""
        height, width = self._ask("size", image)
        return height, width

    def run(self, image: int) -> Run:
        """Run on the image of this index."""
        (run,) = self.turn([[image]]).runs
        return run

    def turn(self, batches: Sequence[Sequence[int]]) -> Turn:
        """Run on batches of images, given by index, all at once."""
        result = self._ask("turn", batches)
        assert isinstance(result, Turn)
        return result

    def load_ms(self) -> float:
        """Milliseconds that opening the engine took."""
        return float(self._ask("load"))

    def peak_mib(self) -> float:
        """The most memory that the process has held so far, in MiB, its libraries included."""
        return float(self._ask("peak"))

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()  # the process ends when its end of the pipe does
        self._process.join(30)
        if self._process.is_alive():
            self._process.terminate()

    def _ask(self, what: str, which: Any = None) -> Any:
        try:
            self._pipe.send((what, which))
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("a worker process ended without an answer") from error
        if isinstance(answer, RetinartError):
            raise answer
        if isinstance(answer, str):
            raise RuntimeError(f"a worker process failed:\n{answer}")
        return answer


def _serve(pipe: Connection, recipe: Recipe, images: list[Path], threads: int) -> None:
    """What a worker's process does until the pipe is closed."""
    try:
        cv2.setNumThreads(threads)
        start = time.perf_counter()
        engine = recipe.open()
        load_ms = 1000 * (time.perf_counter() - start)
        with ThreadPoolExecutor(64) as pool:
            while True:
                try:
                    what, which = pipe.recv()
                except EOFError:
                    return
                pipe.send(_answer(what, which, engine, images, load_ms, pool))
    except RetinartError as error:
        pipe.send(error)
    except Exception:
        pipe.send(traceback.format_exc())


def _answer(
    what: str, which: Any, engine: Engine, images: list[Path], load_ms: float, pool: Executor
) -> Any:
    match what:
        case "turn":
            return _turn(engine, [[images[i] for i in batch] for batch in which], pool)
        case "size":
            return engine.size(read_image(images[which]))
        case "load":
            return load_ms
        case "peak":
            return _peak_mib()
    raise AssertionError(what)


def _turn(engine: Engine, batches: list[list[Path]], pool: Executor) -> Turn:
    read, decode = [], []
    for batch in batches:
        start = time.perf_counter()
        read.append([read_image(path) for path in batch])
        decode.append(1000 * (time.perf_counter() - start))
    start = time.perf_counter()
    runs = [engine.run(read[0])] if len(read) == 1 else list(pool.map(engine.run, read))
    ms = 1000 * (time.perf_counter() - start)
    runs = [replace(run, ms={**run.ms, "decode": d}) for run, d in zip(runs, decode, strict=True)]
    return Turn(runs=tuple(runs), ms=ms)


def _peak_mib() -> float:
    """Of this process alone: getrusage would also count what its parent held when it started it."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


class _Retinart:
    def __init__(self, recipe: Retinart) -> None:
        self._detector = Detector(
            recipe.model,
            runtime=recipe.runtime,
            compute=recipe.compute,
            threads=recipe.threads,
            imgsz=recipe.imgsz,
            check=False,  # it would count as loading
        )

    def size(self, image: Image) -> tuple[int, int]:
        rule = self._detector.info.resize
        return rule.canvas_for([rule.fit(*image.shape[:2])])

    def run(self, images: Sequence[Image]) -> Run:
        clock = StageClock()
        with clock("total"):
            found = self._detector(images, clock=clock)
        return Run(
            ms={stage: sum(values) for stage, values in clock.ms.items()}, found=tuple(found)
        )
