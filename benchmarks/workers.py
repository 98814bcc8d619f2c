"""Engines in processes of their own, that run one image at a time when asked.

Every process holds one engine with its own threads and its own memory, so neither can slow the
other except by running, and only one runs at a time. The images lie decoded in each of them.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2

from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.errors import RetinartError
from retinart.engine.images import Image, read_image
from retinart.engine.info import CANDIDATES, INPUT, Thresholds, read_info
from retinart.engine.runners import find_tensor, load_openvino
from retinart.engine.timing import StageClock


@dataclass(frozen=True, kw_only=True)
class Run:
    """One image through an engine.

    Attributes:
        ms: milliseconds by stage; `total` is measured around all of them.
        found: the detections, in pixels of the image, or None for engines that stop before.
    """

    ms: dict[str, float]
    found: Detections | None = None


class Engine(Protocol):
    """What a worker runs."""

    def size(self, image: Image) -> tuple[int, int]:
        """(height, width) that the network gets for an image (H, W, 3) uint8 BGR."""

    def run(self, image: Image) -> Run:
        """Run on an image (H, W, 3) uint8 BGR."""


class Recipe(Protocol):
    """How to open an engine: small, and sent to the worker's process."""

    def open(self) -> Engine: ...


@dataclass(frozen=True, kw_only=True)
class Retinart:
    """Our detector: an exported file on OpenVINO."""

    model: Path
    threads: int

    def open(self) -> Engine:
        return _Retinart(self)


@dataclass(frozen=True, kw_only=True)
class RetinartCuts:
    """An exported file up to the raw heads and up to the candidates, each timed in turn.

    The second one less the first is not all that the candidates cost: raw heads are outputs, which
    OpenVINO copies into plain layout. So what the profile says of the candidates' nodes, and of the
    changes of layout before them, is summed as `selection`.
    """

    model: Path
    heads: tuple[str, ...]
    threads: int

    def open(self) -> Engine:
        return _RetinartCuts(self)


@dataclass(frozen=True, kw_only=True)
class Torchvision:
    """torchvision's own model, in eager mode.

    Attributes:
        checkpoint: a state dict of retinanet_resnet50_fpn or its v2.
        peers: folder that torchvision is imported from.
        group_norm: it is a v2, with GroupNorm in the heads.
        bn_eps: epsilon of the backbone's norms.
        min_size, max_size: of its transform.
        channels_last: weights are laid out channels last, which is faster on CPUs.
    """

    checkpoint: Path
    peers: Path
    num_classes: int
    group_norm: bool
    bn_eps: float
    min_size: int
    max_size: int
    thresholds: Thresholds = field(default_factory=Thresholds)
    channels_last: bool = False
    threads: int

    def open(self) -> Engine:
        from retinart.benchmarks.torchvision_engine import TorchvisionEngine

        return TorchvisionEngine(self)


class Worker:
    """A process with an engine in it. Use it as a context manager.

    Args:
        recipe: makes the engine, in the new process.
        images: files that are read there, at the start.
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
        result = self._ask("run", image)
        assert isinstance(result, Run)
        return result

    def load_ms(self) -> float:
        """Milliseconds that opening the engine took."""
        return float(self._ask("load", 0))

    def peak_mib(self) -> float:
        """The most memory that the process has held so far, in MiB, its libraries included."""
        return float(self._ask("peak", 0))

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

    def _ask(self, what: str, image: int) -> Any:
        try:
            self._pipe.send((what, image))
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
        frames = [read_image(path) for path in images]
        while True:
            try:
                what, image = pipe.recv()
            except EOFError:
                return
            pipe.send(_answer(what, engine, frames, image, load_ms))
    except RetinartError as error:
        pipe.send(error)
    except Exception:
        pipe.send(traceback.format_exc())


def _answer(what: str, engine: Engine, frames: list[Image], image: int, load_ms: float) -> Any:
    match what:
        case "run":
            return engine.run(frames[image])
        case "size":
            return engine.size(frames[image])
        case "load":
            return load_ms
        case "peak":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    raise AssertionError(what)


class _Retinart:
    def __init__(self, recipe: Retinart) -> None:
        self._detector = Detector(recipe.model, runtime="openvino", threads=recipe.threads)

    def size(self, image: Image) -> tuple[int, int]:
        rule = self._detector.info.resize
        return rule.canvas_for([rule.fit(*image.shape[:2])])

    def run(self, image: Image) -> Run:
        clock = StageClock()
        with clock("total"):
            found = self._detector(image, clock=clock)
        return Run(ms={stage: sum(values) for stage, values in clock.ms.items()}, found=found)


class _RetinartCuts:
    """Two compiled graphs in one process; the one that goes first alternates."""

    def __init__(self, recipe: RetinartCuts) -> None:
        openvino = load_openvino()
        core = openvino.Core()
        self._info = read_info(recipe.model)
        assert self._info.resize.canvas is not None
        whole = core.read_model(recipe.model)
        whole.reshape({INPUT: [1, *self._info.resize.canvas, 3]})
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": recipe.threads,
            "PERF_COUNT": True,
        }
        self._requests = {}
        for name, tensors in (("heads", recipe.heads), ("candidates", CANDIDATES)):
            cut = openvino.Model(
                [find_tensor(whole, t) for t in tensors], whole.get_parameters(), name
            ).clone()
            self._requests[name] = core.compile_model(cut, "CPU", config).create_infer_request()
        self._turn = 0

    def size(self, image: Image) -> tuple[int, int]:
        assert self._info.resize.canvas is not None
        return self._info.resize.canvas

    def run(self, image: Image) -> Run:
        batch, _ = self._info.resize.apply([image])
        order = list(self._requests.items())
        self._turn += 1
        ms = {}
        for name, request in order[:: 1 if self._turn % 2 else -1]:
            start = time.perf_counter()
            request.infer({0: batch}, share_inputs=True)
            ms[name] = 1000 * (time.perf_counter() - start)
        nodes = self._requests["candidates"].profiling_info
        ms["selection"] = 1000 * sum(
            node.real_time.total_seconds() for node in nodes if "candidate" in node.node_name
        )
        return Run(ms=ms)
