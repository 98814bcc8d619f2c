"""What else runs the same detector: the peers that a benchmark is held against.

A peer gets the same images, threads and thresholds, and gives final boxes for a decoded image, as
we do. One that cannot run here is left out, with the reason.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from retinart.benchmarks.timing.workers import Recipe, Retinart
from retinart.engine.common.files import sha256
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.media.images import read_image
from retinart.engine.model.info import ModelInfo
from retinart.engine.model.resize import PAPER_RATIO
from retinart.engine.tensorrt.engine_file import is_engine

# PyTorch is not imported here: this module is loaded where it need not be installed.

NAMES = ("torchvision", "torch-compile", "onnxruntime", "torch-compile-fp16")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A peer that can be opened.

    Attributes:
        name: for tables.
        what: what it is, in a sentence without a full stop.
        recipe: opens it.
        own_size: it resizes images by its own rule, and so has to be held to the same sizes.
    """

    name: str
    what: str
    recipe: Recipe
    own_size: bool = False


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A peer that is not measured, and why."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """Which peers to look for.

    Attributes:
        names: of `NAMES`.
        checkpoint: what the model was exported from, for those that run in PyTorch.
        folder: where torchvision is imported from, see `benchmarks.peers.torchvision_shim`.
        threads: of each.
    """

    names: tuple[str, ...]
    checkpoint: Path | None
    folder: Path
    threads: int

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in NAMES:
                raise BadInput(f"there is no peer {name!r}", fix=f"Known are {', '.join(NAMES)}")


def find_peers(model: Path, info: ModelInfo, settings: PeerSettings) -> list[Peer | LeftOut]:
    """The peers of a model, each as it can be opened or with the reason why not.

    Args:
        model: an ONNX file, which ONNX Runtime gets as it is.
        info: its metadata, with the size that images are resized to.
        settings: which to look for.

    Raises:
        BadInput: the checkpoint is not there, or not that of the model.
    """
    checkpoint = settings.checkpoint
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise BadInput(f"there is no checkpoint at {checkpoint}", fix="Check --checkpoint")
        if sha256(checkpoint) != info.provenance.get("checkpoint_sha256"):
            raise BadInput(
                f"{model.name} was not exported from {checkpoint}",
                why="a peer would run another network",
                fix="Give the checkpoint that it was exported from",
            )
    return [_find(name, model, info, settings) for name in settings.names]


def same_size(paths: Sequence[Path], info: ModelInfo) -> Iterator[Path]:
    """Images that a file gives the size that a shorter side alone, as peers know it, gives them.

    Fixed inputs are 4:3: other images are fitted in, and a peer would make them larger.
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


def _find(name: str, model: Path, info: ModelInfo, settings: PeerSettings) -> Peer | LeftOut:
    if name == "onnxruntime":
        return _onnxruntime(model, info, settings)
    compiled = name != "torchvision"
    if settings.checkpoint is None:
        return LeftOut(name=name, why="it runs the checkpoint, and no --checkpoint is given")
    if importlib.util.find_spec("torch") is None:
        return LeftOut(name=name, why="PyTorch is not installed")
    if name == "torch-compile-fp16":
        if not find_gpus():
            return LeftOut(name=name, why="there is no GPU here")
        return _own(name, info, settings, compiled=True, half=True, why="")
    compiler = os.environ.get("CXX", "g++")
    if compiled and shutil.which(compiler) is None:
        return LeftOut(name=name, why=f"torch.compile needs a C++ compiler, {compiler} is absent")
    why = _why_not_torchvision(info, settings.folder)
    if why:
        return _own(name, info, settings, compiled=compiled, half=False, why=why)
    from retinart.benchmarks.peers.torchvision_model import Torchvision

    rule = info.resize
    assert rule.short_side is not None
    how = "torch.compile of its backbone and heads" if compiled else "eager mode"
    variant = info.variant
    return Peer(
        name="torch.compile" if compiled else "torchvision eager",
        what=f"torchvision's RetinaNet, {how}, PyTorch {version('torch')}",
        own_size=True,
        recipe=Torchvision(
            checkpoint=settings.checkpoint,
            peers=settings.folder,
            backbone=variant.backbone,
            num_classes=variant.num_classes,
            group_norm=variant.head_norm_groups > 0,
            bn_eps=variant.bn_eps,
            min_size=rule.short_side,
            max_size=rule.max_size or int(rule.short_side * PAPER_RATIO),
            thresholds=info.thresholds,
            compiled=compiled,
            threads=settings.threads,
        ),
    )


def _why_not_torchvision(info: ModelInfo, folder: Path) -> str:
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


def _own(
    name: str, info: ModelInfo, settings: PeerSettings, *, compiled: bool, half: bool, why: str
) -> Peer:
    from retinart.benchmarks.peers.torch_model import TorchModel

    assert settings.checkpoint is not None
    how = ("torch.compile" if compiled else "eager mode") + (", FP16 on the GPU" if half else "")
    label = ("torch.compile" if compiled else "PyTorch eager") + (" FP16" if half else "")
    what = f"retinart's own network, {how}, PyTorch {version('torch')}"
    return Peer(
        name=label,
        what=f"{what} ({why.rstrip('.')})" if why else what,
        recipe=TorchModel(
            checkpoint=settings.checkpoint,
            info=info,
            threads=settings.threads,
            compiled=compiled,
            half_on_gpu=half,
        ),
    )


def _onnxruntime(model: Path, info: ModelInfo, settings: PeerSettings) -> Peer | LeftOut:
    name = "onnxruntime"
    if importlib.util.find_spec(name) is None:
        return LeftOut(name=name, why='it is not installed: `pip install "retinart[onnxruntime]"`')
    if is_engine(model):
        return LeftOut(name=name, why="it runs ONNX files, and none is given")
    imgsz = None if info.resize.canvas else info.resize.short_side
    return Peer(
        name="ONNX Runtime",
        what=f"the first {info.precision.upper()} file as it is, NMS in the graph, "
        f"ONNX Runtime {version(name)}",
        recipe=Retinart(model=model, threads=settings.threads, runtime="onnxruntime", imgsz=imgsz),
    )
