"""The peers of a benchmark: other programs that run the same detector.

A peer gets the same images, threads and thresholds, and turns a decoded image into final boxes as
we do. A peer that cannot run here is left out with the reason.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retinart.benchmarks.timing.contestants import OurDetector, Recipe
from retinart.benchmarks.timing.results import LeftOut
from retinart.benchmarks.timing.settings import BenchmarkSettings
from retinart.engine.common.files import sha256
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.errors import BadInput, MissingDependency, pip_command
from retinart.engine.media.images import read_image
from retinart.engine.model.info import ModelInfo
from retinart.engine.model.resize_rule import PAPER_RATIO
from retinart.engine.tensorrt.engine_file import is_engine

# Nothing here imports PyTorch at the top, because a benchmark without peers runs without it.


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A peer that can be opened.

    Attributes:
        name: for tables.
        what: what it is, in a sentence without a full stop.
        recipe: opens it.
        own_size: the peer resizes images by its own rule, so its sizes have to be compared.
    """

    name: str
    what: str
    recipe: Recipe
    own_size: bool = False


def find_peers(model: Path, info: ModelInfo, settings: BenchmarkSettings) -> list[Peer | LeftOut]:
    """The peers of a model: how to open each, or why it cannot run.

    Args:
        model: an ONNX file, which ONNX Runtime gets as it is.
        info: its metadata, with the size that images are resized to.
        settings: which to look for.

    Raises:
        BadInput: there is no checkpoint, or the model was not exported from it.
    """
    checkpoint = settings.checkpoint
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise BadInput(f"there is no checkpoint at {checkpoint}", fix="Check `checkpoint`")
        if sha256(checkpoint) != info.provenance.get("checkpoint_sha256"):
            raise BadInput(
                f"{model.name} was not exported from {checkpoint}",
                why="a peer would run another network",
                fix="Give the checkpoint that it was exported from",
            )
    return [_find(name, model, info, settings) for name in settings.peers]


def same_size(paths: Sequence[Path], info: ModelInfo) -> Iterator[Path]:
    """The images that a file resizes as a peer does, which goes by the shorter side alone.

    Fixed inputs are 4:3. Images of other shapes are fitted in, and a peer would make them larger.
    """
    rule = info.resize
    if rule.canvas is None:
        yield from paths
        return
    assert rule.short_side is not None
    free = dataclasses.replace(rule, canvas=None, max_size=int(rule.short_side * PAPER_RATIO))
    for path in paths:
        height, width = read_image(path).shape[:2]
        if free.canvas_for([free.fit(height, width)]) == rule.canvas:
            yield path


def _find(name: str, model: Path, info: ModelInfo, settings: BenchmarkSettings) -> Peer | LeftOut:
    if name == "onnxruntime":
        return _onnxruntime(model, info, settings)
    if settings.checkpoint is None:
        return LeftOut(name=name, why="it runs the checkpoint, and no checkpoint is given")
    if importlib.util.find_spec("torch") is None:
        return LeftOut(name=name, why="PyTorch is not installed")
    compiled, half = name != "torchvision", name == "torch-compile-fp16"
    if half and not find_gpus():
        return LeftOut(name=name, why="there is no GPU here")
    compiler = os.environ.get("CXX", "g++")
    if compiled and not half and shutil.which(compiler) is None:
        return LeftOut(name=name, why=f"torch.compile needs a C++ compiler, {compiler} is absent")
    from retinart.benchmarks.peers.torch_model import TorchModel
    from retinart.benchmarks.peers.torchvision_model import TorchvisionModel

    why = "" if half else _why_not_torchvision(info, settings.torchvision)
    torch = f"PyTorch {version('torch')}"
    common: dict[str, Any] = {
        "checkpoint": settings.checkpoint, "info": info, "threads": settings.threads,
        "compiled": compiled,
    }  # fmt: skip
    if settings.torchvision is not None and not half and not why:
        how = "torch.compile of its backbone and heads" if compiled else "eager mode"
        return Peer(
            name="torch.compile" if compiled else "torchvision eager",
            what=f"torchvision's RetinaNet, {how}, {torch}",
            own_size=True,
            recipe=partial(TorchvisionModel, folder=settings.torchvision, **common),
        )
    how = ("torch.compile" if compiled else "eager mode") + (", FP16 on the GPU" if half else "")
    what = f"retinart's own network, {how}, {torch}"
    return Peer(
        name=("torch.compile" if compiled else "PyTorch eager") + (" FP16" if half else ""),
        what=f"{what} ({why.rstrip('.')})" if why else what,
        recipe=partial(TorchModel, half_on_gpu=half, **common),
    )


def _why_not_torchvision(info: ModelInfo, folder: Path | None) -> str:
    """Why torchvision cannot run a model; "" where it can."""
    if not info.variant.source.startswith("torchvision"):
        return f"torchvision has no RetinaNet of {info.variant.source}"
    if info.resize.short_side is None:
        return "torchvision resizes by the shorter side, and the file has a size of its own"
    shim = importlib.import_module("retinart.benchmarks.peers.torchvision_shim")  # imports PyTorch
    try:
        shim.check_installed(folder)
    except MissingDependency as error:
        return str(error)
    return ""


def _onnxruntime(model: Path, info: ModelInfo, settings: BenchmarkSettings) -> Peer | LeftOut:
    name = "onnxruntime"
    if importlib.util.find_spec(name) is None:
        return LeftOut(name=name, why=f"it is not installed: `{pip_command('onnxruntime')}`")
    if is_engine(model):
        return LeftOut(name=name, why="it runs ONNX files, and none is given")
    imgsz = None if info.resize.canvas else info.resize.short_side
    return Peer(
        name="ONNX Runtime",
        what=f"the first {info.precision.upper()} file as it is, NMS in the graph, "
        f"ONNX Runtime {version(name)}",
        recipe=partial(
            OurDetector, model, threads=settings.threads, runtime="onnxruntime", imgsz=imgsz
        ),
    )
