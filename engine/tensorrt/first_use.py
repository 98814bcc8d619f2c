"""Engines that are built when a detector first asks for one, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from retinart.engine.common.files import sha256
from retinart.engine.common.progress import Progress
from retinart.engine.common.user_cache import remove_oldest, user_cache
from retinart.engine.cuda.devices import Gpu, find_gpus
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.tensorrt.api import TITLES, EngineRuntime, installed, load_tensorrt
from retinart.engine.tensorrt.builder import build_engine
from retinart.engine.tensorrt.engine_file import check_plan, read_engine_info

LARGEST_FOLDER = 8 << 30  # bytes; the least recently used engines go first

_BUILD = "Build an engine with `retinart build`, and give its path"


def engine_for(model: Path, gpu: int, folder: Path | None = None) -> Path:
    """The engine of an ONNX file for a GPU of this machine; it is built if none is kept.

    An engine is kept for the file's content, the GPU's name, the CUDA version of its driver, and
    the versions of TensorRT and retinart. Engines that were not used for longest are removed when
    all take more than 8 GiB.

    Args:
        model: a file of `retinart export`, `calibrate` or `convert`.
        gpu: the driver's number.
        folder: where engines are kept; None takes the user's cache.

    Raises:
        MissingDependency: this machine has no GPU, or something that builds is not installed.
        BadInput: there is no such GPU, or the cache cannot be written.
        CheckFailed: TensorRT refuses the graph.
    """
    found = _gpu(model, gpu)
    folder = folder or user_cache("engines")
    if folder is None:
        raise BadInput(
            f"the engine of {model} cannot be kept",
            why="the user's cache folder cannot be written",
            fix=f"Set XDG_CACHE_HOME to a folder that can. Or: {_BUILD}",
        )
    runtime: EngineRuntime = "tensorrt" if installed("tensorrt") else "tensorrt-rtx"
    made_of = [
        sha256(model), found.name, found.compute_capability, found.cuda, runtime,
        load_tensorrt(runtime).__version__, version("retinart"),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]
    path = folder / f"{key}.engine"
    with suppress(BadInput):
        check_plan(path, read_engine_info(path))
        with suppress(OSError):
            os.utime(path)  # the most recently used
        return path
    progress = Progress()
    progress.line(
        f"building an engine of {model} for {found.name} with {TITLES[runtime]}. "
        f"This happens once: it is kept as {path}"
    )
    build_engine(
        model,
        path,
        gpu if runtime == "tensorrt" else 0,  # TensorRT-RTX builds for all of them
        lambda done, phase: progress.update(int(100 * done), 100, phase),
    )
    progress.line(f"built in {read_engine_info(path).build_seconds:.0f} s")
    remove_oldest(folder, ".engine", LARGEST_FOLDER)
    return path


def _gpu(model: Path, index: int) -> Gpu:
    gpus = find_gpus()
    if not gpus:
        raise MissingDependency(
            f"{model} cannot run on cuda",
            why="NVIDIA's driver is not installed, or finds no GPU",
            fix="Leave the device out to run it on the CPU",
        )
    for gpu in gpus:
        if gpu.index == index:
            return gpu
    raise BadInput(
        f"there is no GPU {index} that works",
        fix=f"Choose one of {', '.join(str(gpu.index) for gpu in gpus)}",
    )
