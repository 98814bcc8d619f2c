"""TensorRT's parser and builder take every precision, with fixed and with dynamic sizes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from retinart.calib.fp16 import to_fp16
from retinart.calib.placement import place
from retinart.calib.quantize import quantize
from retinart.engine.model.info import read_info
from retinart.export import tensorrt_rtx
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings
from retinart.train.model.checkpoint import save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet

pytestmark = pytest.mark.skipif(
    not tensorrt_rtx.available(), reason="TensorRT-RTX is not installed"
)
SIZES = {
    "fixed": ExportSettings(height=64, width=96, tensorrt=False),
    "dynamic": ExportSettings(imgsz=64, dynamic=True, tensorrt=False),
}


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """FP32 files of random weights, by architecture and kind of size."""
    folder = tmp_path_factory.mktemp("fp32")
    files = {}
    for name in ("tiny", "resnet18"):
        torch.manual_seed(1)
        variant = preset(name, 3)
        model, path = build_retinanet(variant).eval(), folder / f"{name}.pt"
        save_checkpoint(path, model=model, variant=variant, classes=("a", "b", "c"), training={})
        for size, settings in SIZES.items():
            out = folder / f"{name}.{size}.onnx"
            files[name, size] = export_checkpoint(path, out, settings).path
    return files


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8+fp16"])
@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_builds(
    name: str, size: str, precision: str, fp32: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    source = fp32[name, size]
    model = onnx.load(source)
    if "int8" in precision:
        placement = place(model)
        model = quantize(model, placement, dict.fromkeys(placement.activations, 3.0))
    if "fp16" in precision:
        model, _ = to_fp16(model, {})
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    report = tensorrt_rtx.check_build(path, read_info(source), max_batch=4)
    assert report.plan_bytes > 0


def test_a_graph_that_tensorrt_refuses(fp32: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    """The check can fail: an INT8 tensor with a zero point, as onnxruntime's tools write it."""
    from retinart.engine.errors import CheckFailed

    model = onnx.load(fp32["tiny", "fixed"])
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
        tensorrt_rtx.check_build(path, read_info(fp32["tiny", "fixed"]))
