"""What several test files do: make pictures and videos, and look at what is left on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from retinart.engine.evaluation.coco_figures import FIGURES
from retinart.engine.media.images import Image
from retinart.engine.media.video import VideoReader
from retinart.engine.model.info import (
    CANDIDATES,
    HEADS,
    INPUT,
    METADATA_KEY,
    NORMALIZED,
    OUTPUTS,
    ModelInfo,
    Thresholds,
)
from retinart.engine.model.onnx_file import write_onnx
from retinart.engine.model.resize_rule import ResizeRule
from retinart.engine.model.variant import Variant
from retinart.export import export
from retinart.export.checkpoint_projects import PROJECTS, Project
from retinart.export.graph import IR_VERSION, OPSET
from retinart.export.settings import ExportSettings
from retinart.train import trainer
from retinart.train.model.checkpoint import save_checkpoint
from retinart.train.model.retinanet import build_retinanet
from retinart.train.settings import TrainSettings

# Makes a folder of files, by name and filled by a function, once for all workers; see conftest.py.
Once = Callable[[str, Callable[[Path], object]], Path]
Tensors = dict[str, tuple[str, list[int]]]  # types and shapes of tensors by name
ROOT = Path(__file__).resolve().parent.parent
SCENES_CHECKPOINT = ROOT / "train" / "assets" / "tiny.pt"  # it knows generated scenes
_BITS = 24  # of the number in a picture


def make_picture(seed: int, height: int = 96, width: int = 128) -> Image:
    """(height, width, 3) uint8 BGR: a grid of 6x8 random colours."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def numbered_jpeg(number: int, image: Image) -> bytes:
    """A JPEG of a copy of an image, with a number along its top in blocks of 8 pixels."""
    marked = image.copy()
    for bit in range(_BITS):
        marked[:8, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    done, data = cv2.imencode(".jpg", marked)
    assert done
    return bytes(data)


def number_of(image: Image) -> int:
    """The number that `numbered_jpeg` wrote."""
    bits = image[2:6, : 8 * _BITS].reshape(4, _BITS, 8, 3)[:, :, 2:6].mean(axis=(0, 2, 3)) > 127
    return int(np.packbits(bits, bitorder="little").astype(np.int64) @ (1, 256, 65536))


def write_images(folder: Path, *names: str) -> Path:
    """Write a picture for each name below a folder, and return the folder."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), make_picture(seed))
    return folder


def write_video(path: Path, frames: int = 12, size: tuple[int, int] = (96, 128)) -> Path:
    """Write a video of 10 frames a second, and return its path."""
    fourcc = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), 10, size[::-1])
    assert writer.isOpened()
    for seed in range(frames):
        writer.write(make_picture(seed, *size))
    writer.release()
    return path


def count_frames(path: Path) -> int:
    """Frames of a video that can be decoded."""
    with VideoReader(path) as video:
        return sum(1 for _ in video)


def files_below(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too: no temporary file may be among them."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file, whose last line must be whole."""
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def named(name: str) -> Project:
    """The record of a project whose checkpoints are read."""
    return next(source for source in PROJECTS if source.name == name)


def project_state(
    name: str, backbone: str = "resnet18", num_classes: int = 5, **fields: Any
) -> dict[str, Tensor]:
    """A small state dict under a project's names, made by undoing the renaming.

    Each tensor holds one number, of its own.
    """
    source = named(name)
    settings = {"fpn_channels": 32, **source.settings, **fields}
    variant = Variant(source=name, backbone=backbone, num_classes=num_classes, **settings)
    with torch.device("meta"):
        ours = build_retinanet(variant).state_dict()
    numbers = torch.linspace(0.5, 1, len(ours))
    return {
        source.original(key): number.expand(value.shape).contiguous()
        for number, (key, value) in zip(numbers, ours.items(), strict=True)
        if not key.endswith("num_batches_tracked")
    }


def torchvision_state(num_classes: int = 5) -> dict[str, Tensor]:
    """The same under torchvision's names."""
    return project_state("torchvision retinanet_resnet50_fpn", num_classes=num_classes)


def made_info(**changes: Any) -> ModelInfo:
    """The metadata of `made_graph`."""
    values: dict[str, Any] = {
        "name": "model",
        "classes": ("disc", "Größe", "ring"),
        "precision": "fp32",
        "variant": Variant(source="x", backbone="tiny", num_classes=3, box_clamp=None),
        "resize": ResizeRule(
            short_side=600, max_size=None, canvas=(608, 800), pad_multiple=32, pad_value=(1, 2, 3)
        ),
        "min_size": (608, 800),
        "max_size": (608, 800),
        "thresholds": Thresholds(score_thresh=0.1),
        "provenance": {"checkpoint": "a.pt", "versions": {"torch": "2"}},
    }
    return ModelInfo(**{**values, **changes})


def export_unchecked(
    checkpoint: Path, output: Path, settings: ExportSettings, *, self_test: bool = True
) -> Path:
    """Export without the comparison with PyTorch, which takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "check_parity", lambda *given: None)
        if not self_test:
            patch.setattr(export, "with_probe", lambda info, model: info)
        return export.export_checkpoint(checkpoint, output, settings).path


def save_changed(model: onnx.ModelProto, path: Path) -> None:
    """Write a model file whose graph was changed, and so without its self-test."""
    (text,) = (entry.value for entry in model.metadata_props if entry.key == METADATA_KEY)
    info = ModelInfo.from_json(text, str(path))
    write_onnx(model, dataclasses.replace(info, probe=None), path)


def made_graph(
    *, canvas: Sequence[int | str] = (608, 800), classes: int = 3, most: int = 100
) -> onnx.ModelProto:
    """A graph with the names and shapes of a model file, and with hardly any nodes."""
    make, proto = onnx.helper, onnx.TensorProto
    shapes = {"logits": 9 * classes, "deltas": 9 * 4}
    nodes = [make.make_node("Cast", [INPUT], [NORMALIZED], to=proto.FLOAT)]
    for name in HEADS:
        kind = name.partition("_")[0]
        nodes.append(make.make_node("Conv", [NORMALIZED, kind], [name], name=name))
    for name in (*CANDIDATES, *OUTPUTS):
        nodes.append(make.make_node("Relu", [HEADS[0]], [name], name=name))
    types = (proto.INT32, proto.FLOAT, proto.FLOAT, proto.INT32)
    sizes: tuple[list[int | str], ...] = ([1], [most, 4], [most], [most])
    outputs = [
        make.make_tensor_value_info(name, kind, ["batch", *size])
        for name, kind, size in zip(OUTPUTS, types, sizes, strict=True)
    ]
    weights = [
        onnx.numpy_helper.from_array(np.zeros((channels, 3, 1, 1), np.float32), name)
        for name, channels in shapes.items()
    ]
    frames = make.make_tensor_value_info(INPUT, proto.UINT8, ["batch", *canvas, 3])
    graph = make.make_graph(nodes, "made", [frames], outputs, weights)
    opset = make.make_opsetid("", OPSET)
    return make.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def graph_tensors(path: Path) -> Tensors:
    """Type and shape of each input and output of an ONNX file; -1 for a side that is open."""
    graph = onnx.load(path).graph
    found = {}
    for value in (*graph.input, *graph.output):
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        dims = value.type.tensor_type.shape.dim
        found[value.name] = (kind, [d.dim_value if d.HasField("dim_value") else -1 for d in dims])
    return found


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT / "tests",  # not the root, where bare `engine` and `train` could be imported
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def train_and_stop(settings: TrainSettings, after_epoch: int = 1) -> None:
    """A run that ends as if it were killed, once `last.pt` of that epoch is written."""

    def save(path: Path, **content: Any) -> None:
        save_checkpoint(path, **content)
        if path.name == "last.pt" and len(content["resume"]["rows"]) == after_epoch:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", save)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(settings)


def load_file(path: Path) -> ModuleType:
    """A Python file outside of the packages, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def narrow(text: str) -> str:
    """A table of Markdown without the spaces that make its columns line up."""
    return re.sub(r" +", " ", text)


def by_pycocotools(annotations: Path, results: Path) -> dict[str, float | None]:
    """What pycocotools gives for two files, as its own programs call it."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        run = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {
        n: None if v < 0 else float(v) for n, v in zip(FIGURES, run.stats.tolist(), strict=True)
    }
