"""TensorRT's parser and builder take every precision, size and project's conventions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import onnx
import pytest
import torch

from retinart.calib.fp16 import to_fp16
from retinart.calib.placement import place
from retinart.calib.quantize import quantize
from retinart.engine.errors import CheckFailed
from retinart.engine.model.info import read_info
from retinart.export import tensorrt_rtx
from retinart.export.checkpoint_projects import PROJECTS
from retinart.export.settings import ExportSettings
from retinart.train.model.checkpoint import save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from support import Once, export_unchecked

pytestmark = pytest.mark.skipif(
    not tensorrt_rtx.available(), reason="TensorRT-RTX is not installed"
)
SIZES = {
    "fixed": ExportSettings(imgsz=64, tensorrt=False),
    "dynamic": ExportSettings(imgsz=64, dynamic=True, tensorrt=False),
}
VARIANTS = {
    "tiny": preset("tiny", 3),
    "group norm": replace(preset("tiny", 3), backbone_norm_groups=16),
} | {
    source.name: replace(
        preset("resnet18", 3),
        source=source.name,
        backbone="tiny",
        fpn_channels=64,
        head_convs=1,
        **source.settings,
    )
    for source in PROJECTS
    if not source.name.startswith("torchvision")  # their nodes are detectron2's and `tiny`'s
}


@pytest.fixture
def fp32(once: Once) -> Callable[[str, str], Path]:
    """The FP32 file of a variant with random weights and of a kind of size."""

    def get(name: str, size: str) -> Path:
        def make(folder: Path) -> None:
            torch.manual_seed(1)
            variant, path = VARIANTS[name], folder / "model.pt"
            model, classes = build_retinanet(variant).eval(), ("a", "b", "c")
            save_checkpoint(path, model=model, variant=variant, classes=classes, training={})
            export_unchecked(path, folder / "model.onnx", SIZES[size])

        return once(f"precision {name} {size}", make) / "model.onnx"

    return get


@pytest.mark.parametrize(
    ("name", "size", "precision"),
    [
        # test_build.py builds files of a fixed size in FP32, FP16 and INT8
        ("tiny", "fixed", "int8+fp16"),
        ("group norm", "dynamic", "fp16"),
        ("tiny", "dynamic", "int8"),
        *product(list(VARIANTS)[2:], ["fixed"], ["int8"]),
    ],
)
def test_builds(
    name: str, size: str, precision: str, fp32: Callable[[str, str], Path], tmp_path: Path
) -> None:
    source = fp32(name, size)
    model = onnx.load(source)
    if "int8" in precision:
        placement = place(model)
        model = quantize(model, placement, dict.fromkeys(placement.activations, 3.0))
    if "fp16" in precision:
        model, _ = to_fp16(model, {})
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    # a profile of several batches takes twice the time
    report = tensorrt_rtx.check_build(
        path, read_info(source), max_batch=2 if size == "dynamic" else 1
    )
    assert report.plan_bytes > 1_000_000


def test_a_graph_that_tensorrt_refuses(fp32: Callable[[str, str], Path], tmp_path: Path) -> None:
    """The check can fail: an INT8 tensor with a zero point, as onnxruntime's tools write it."""
    model = onnx.load(fp32("tiny", "fixed"))
    placement = place(model)
    model = quantize(model, placement, dict.fromkeys(placement.activations, 3.0))
    for initializer in model.graph.initializer:
        if initializer.name == "quantize/zero_point":
            initializer.CopyFrom(
                onnx.numpy_helper.from_array(
                    onnx.numpy_helper.to_array(initializer) + 3, initializer.name
                )
            )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(CheckFailed, match="TensorRT-RTX"):
        tensorrt_rtx.check_build(path, read_info(fp32("tiny", "fixed")))
