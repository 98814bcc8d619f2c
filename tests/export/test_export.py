"""Every setting in which RetinaNets differ, through export: the file computes what PyTorch does."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from retinart.engine.errors import BadInput, CheckFailed
from retinart.engine.media.images import Image
from retinart.engine.model.info import INPUT, METADATA_KEY, OUTPUTS, Thresholds, read_info
from retinart.engine.model.variant import Variant
from retinart.export import export, tensorrt_rtx
from retinart.export.export import even_pictures, export_checkpoint, input_size
from retinart.export.graph import GraphBuilder
from retinart.export.onnx_model import build_onnx
from retinart.export.settings import ExportSettings
from retinart.train.model.backbones import BACKBONES
from retinart.train.model.checkpoint import load_checkpoint, save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import RetinaNet, build_retinanet
from support import export_unchecked

BASE = preset("tiny", 3)
SETTINGS: dict[str, dict[str, Any]] = {
    "P6 of C5, no ReLU, group norm, BGR, no std": {
        "p6_from": "c5",
        "p7_relu": False,
        "head_norm_groups": 8,
        "channel_order": "bgr",
        "mean": (103.53, 116.28, 123.675),
        "std": (1.0,) * 3,
    },
    "rounded anchors, strides of the grid": {
        "anchor_rounding": True,
        "anchor_strides": "image//grid",
        "anchor_order": "ratio_outer",
    },
    "size outer, centred, other ratios, inclusive corners, no clamp": {
        "anchor_order": "size_outer",
        "anchor_center": 0.5,
        "anchor_ratios": (1.0, 2.0, 0.5),
        "box_plus_one": True,
        "box_clamp": None,
    },
    "clamped below, clipped after NMS": {
        "box_clamp": 0.2,
        "box_clamp_below": True,
        "clip_before_nms": False,
    },
    "inclusive corners, clipped after NMS": {"box_plus_one": True, "clip_before_nms": False},
}


def varied_model(variant: Variant) -> RetinaNet:
    """Random weights whose logits and deltas spread as a trained model's do."""
    torch.manual_seed(11)
    model = build_retinanet(variant, prior=0.1).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        for head in (model.cls_head, model.box_head):
            for conv in head.convs:
                assert isinstance(conv, torch.nn.Conv2d)
                torch.nn.init.kaiming_normal_(conv.weight)
        scale = 30.0 if variant.std == (1.0,) * 3 else 1.0
        outputs = model(torch.randn(1, 3, 96, 96) * scale)
        model.cls_head.output.weight.mul_(1.5 / outputs.logits[0].std())
        model.box_head.output.weight.mul_(0.3 / outputs.deltas[0].std())
    return model


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a checkpoint of a varied model."""

    def write_checkpoint(variant: Variant) -> Path:
        path = tmp_path / "model.pt"
        classes = [f"c{i}" for i in range(variant.num_classes)]
        save_checkpoint(
            path, model=varied_model(variant), variant=variant, classes=classes, training={}
        )
        return path

    return write_checkpoint


# Those that meet the size of the frame are exported with a dynamic one as well.
OF_THE_SIZE = [name for name in SETTINGS if "anchors" in name or "outer" in name or "NMS" in name]


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [*product(SETTINGS, [False]), *product(OF_THE_SIZE, [True])],
)
def test_settings(name: str, dynamic: bool, write: Any, tmp_path: Path) -> None:
    variant = dataclasses.replace(BASE, **SETTINGS[name])
    report = export_checkpoint(
        write(variant),
        tmp_path / "model.onnx",
        ExportSettings(imgsz=100, dynamic=dynamic, tensorrt=False),
    )
    assert report.parity.detections.matched > 20
    assert report.parity.native.same
    assert read_info(report.path).variant == variant


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_backbones(name: str, write: Any, tmp_path: Path) -> None:
    variant = dataclasses.replace(preset(name, 2), fpn_channels=32)
    settings = ExportSettings(imgsz=64, tensorrt=False)
    report = export_checkpoint(write(variant), tmp_path / "model.onnx", settings)
    assert report.parity.head_diff < 1e-3


# parameters of the ImageNet classifiers less their last layer, as their papers' code has them
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "resnet152": 58_143_808,
    "resnext50_32x4d": 22_979_904,
    "resnext101_32x4d": 42_128_704,
    "resnext101_64x4d": 81_406_272,
    "resnext101_32x8d": 86_742_336,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_backbone_sizes(name: str) -> None:
    with torch.device("meta"):
        model = build_retinanet(preset(name, 80))
    assert sum(p.numel() for p in model.backbone.parameters()) == PARAMETERS[name]
    assert set(BACKBONES) == {*PARAMETERS, "tiny"}


def test_a_file_that_differs_is_not_written(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export really compares: a wrong weight in the graph is found, and nothing is left."""
    checkpoint = write(BASE)

    def broken(model: RetinaNet, info: Any) -> onnx.ModelProto:
        with torch.no_grad():
            original = model.box_head.output.weight.clone()
            model.box_head.output.weight[0, 0, 1, 1] += 0.1
            result = build_onnx(model, info)
            model.box_head.output.weight.copy_(original)
        return result

    monkeypatch.setattr(export, "build_onnx", broken)
    with pytest.raises(CheckFailed, match="raw outputs differ"):
        export_checkpoint(
            checkpoint, tmp_path / "out.onnx", ExportSettings(imgsz=96, tensorrt=False)
        )
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.name]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_written(bad: float, tmp_path: Path) -> None:
    """In the class bias alone: the deltas behind it are sound, and must not cover it up."""
    model = varied_model(BASE)
    with torch.no_grad():
        model.cls_head.output.bias[1] = bad  # type: ignore[index]
    path = tmp_path / "model.pt"
    save_checkpoint(path, model=model, variant=BASE, classes=["a", "b", "c"], training={})
    with pytest.raises(CheckFailed, match="logits_p3 is NaN or infinite"):
        export_checkpoint(path, tmp_path / "out.onnx", ExportSettings(imgsz=96, tensorrt=False))
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_wrong_nms_is_not_written(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write(BASE)
    real = GraphBuilder.loop

    def one_turn(graph: GraphBuilder, most: str, *given: Any, **more: Any) -> str:
        return real(graph, graph.const(1, np.int64), *given, **more)

    monkeypatch.setattr(GraphBuilder, "loop", one_turn)
    with pytest.raises(CheckFailed, match="the file's own NMS differs"):
        export_checkpoint(
            checkpoint, tmp_path / "out.onnx", ExportSettings(imgsz=160, tensorrt=False)
        )
    assert not (tmp_path / "out.onnx").exists()


def test_nms_is_compared_on_even_pictures(tmp_path: Path) -> None:
    """Classes that share their weights have equal scores, in thousands where a picture is even."""
    many = dataclasses.replace(BASE, num_classes=300)
    model = varied_model(many)
    with torch.no_grad():
        for tensor in (model.cls_head.output.weight, model.cls_head.output.bias):
            assert tensor is not None
            shared = tensor.view(many.num_anchors, many.num_classes, -1)
            shared[:] = shared[:, :1].clone()
    names = [str(i) for i in range(many.num_classes)]
    save_checkpoint(tmp_path / "model.pt", model=model, variant=many, classes=names, training={})
    settings = ExportSettings(height=96, width=128, tensorrt=False)
    report = export_checkpoint(tmp_path / "model.pt", tmp_path / "out.onnx", settings)
    assert report.parity.even.matched == 4 * 100
    assert report.parity.native.matched == 2 * 100

    black, white, border, repeated = even_pictures(np.full((1, 64, 96, 3), 7, np.uint8))
    assert not black.any() and (white == 255).all() and (repeated == 7).all()
    assert (border > 0).sum() == 16 * 24 * 3


def test_more_candidates(noisy_checkpoint: Path, tmp_path: Path) -> None:
    def settings(**more: int) -> ExportSettings:
        return ExportSettings(height=96, width=128, tensorrt=False, **more)  # type: ignore[arg-type]

    path = tmp_path / "out.onnx"
    info = export_checkpoint(noisy_checkpoint, path, settings(topk_candidates=50, max_det=250)).info
    assert read_info(path) == info
    few = info.thresholds
    assert (few.topk_candidates, few.nms_candidates, few.detections_per_img) == (50, 250, 250)
    fewer = export_unchecked(noisy_checkpoint, path, settings(topk_candidates=2))
    assert read_info(fewer).thresholds.detections_per_img == 10
    for bad, limit in (({"topk_candidates": 3841}, 3840), ({"max_det": 5001}, 5000)):
        with pytest.raises(BadInput, match=f"whole number from 1 to {limit}"):
            export_checkpoint(noisy_checkpoint, path, settings(**bad))


def test_the_file_is_plain_onnx(model_path: Path) -> None:
    model = onnx.load(model_path)
    onnx.checker.check_model(model, full_check=True)
    assert {n.domain for n in model.graph.node} == {""}
    assert not model.functions
    assert [i.name for i in model.graph.input] == [INPUT]
    assert [o.name for o in model.graph.output] == list(OUTPUTS)
    frames = model.graph.input[0].type.tensor_type
    assert frames.elem_type == onnx.TensorProto.UINT8
    shape = [d.dim_param or d.dim_value for d in frames.shape.dim]
    assert shape == ["batch", 96, 128, 3]
    assert METADATA_KEY in {p.key for p in model.metadata_props}


def test_the_same_checkpoint_gives_the_same_bytes(noisy_checkpoint: Path, tmp_path: Path) -> None:
    settings = ExportSettings(height=64, width=64, tensorrt=False)
    first, again = (
        export_unchecked(noisy_checkpoint, tmp_path / "model.onnx", settings).read_bytes()
        for _ in range(2)
    )
    assert first == again


def test_tensorrt_rtx_refuses(model_path: Path, tmp_path: Path) -> None:
    """The check can fail: a node that TensorRT lacks is named."""
    if not tensorrt_rtx.available():
        pytest.skip("TensorRT-RTX is not installed")
    model = onnx.load(model_path)
    for node in model.graph.node:
        if node.name == "fpn.p6":
            node.op_type, node.domain = "NoSuchThing", "unknown.domain"
    path = tmp_path / "bad.onnx"
    onnx.save(model, path)
    with pytest.raises(CheckFailed, match=r"cannot parse bad\.onnx.*fpn\.p6"):
        tensorrt_rtx.check_build(path, read_info(model_path))


def test_input_sizes() -> None:
    def canvas(**settings: Any) -> tuple[int, int] | None:
        return input_size(BASE, ExportSettings(**settings))[0].canvas

    assert [canvas(imgsz=s) for s in (400, 600, 800)] == [(416, 544), (608, 800), (800, 1088)]
    assert canvas() == (608, 800)
    assert canvas(height=96, width=128) == (96, 128)
    rule, smallest, largest = input_size(BASE, ExportSettings(imgsz=800, dynamic=True))
    assert (rule.canvas, rule.max_size) == (None, 1333)
    assert (smallest, largest) == ((32, 32), (1344, 1344))
    wide = dataclasses.replace(BASE, pad_multiple=128)
    assert input_size(wide, ExportSettings(imgsz=400))[0].canvas == (512, 640)
    like = dataclasses.replace(BASE, interpolation="pillow", size_rounding="nearest")
    rule = input_size(like, ExportSettings())[0]
    assert (rule.interpolation, rule.size_rounding) == ("pillow", "nearest")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 100, "width": 128}, "Set `height` to 128 and `width` to 128"),
        ({"height": 96}, "only one of `height` and `width`"),
        ({"imgsz": 5}, "`imgsz` is 5"),
        ({"height": 96, "width": 96, "dynamic": True}, "exclude each other"),
    ],
)
def test_bad_sizes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        input_size(BASE, ExportSettings(**settings))


def test_dynamic_files_are_compared_at_several_sizes(write: Any, tmp_path: Path) -> None:
    settings = ExportSettings(imgsz=96, dynamic=True, tensorrt=False)
    report = export_checkpoint(write(BASE), tmp_path / "model.onnx", settings)
    assert report.parity.images == 5  # two wide, two tall, the smallest
    compared = read_info(report.path).provenance["compared"]
    assert compared == {"images": 5}


def test_class_names(noisy_checkpoint: Path, tmp_path: Path) -> None:
    settings = ExportSettings(imgsz=96, tensorrt=False, classes=("a", "b", "c"))
    path = export_unchecked(noisy_checkpoint, tmp_path / "a.onnx", settings)
    assert read_info(path).classes == ("a", "b", "c")
    with pytest.raises(BadInput, match="2 class names were given for 3 classes"):
        export_checkpoint(
            noisy_checkpoint, tmp_path / "b.onnx", dataclasses.replace(settings, classes=("a", "b"))
        )
    for names, told in ((("a", "b"), True), (("a",), False), (tuple("abcd"), False)):
        with pytest.raises(BadInput, match="class names were given for 3") as caught:
            export_checkpoint(
                noisy_checkpoint, tmp_path / "b.onnx", dataclasses.replace(settings, classes=names)
            )
        assert ("write `__background__` on the first line" in str(caught.value)) == told


def test_batches_in_pytorch_and_in_the_file(model_path: Path, noisy_checkpoint: Path) -> None:
    """Three frames at once give what each gives alone, in both runtimes and in PyTorch."""
    from retinart.engine.detector import Detector
    from retinart.engine.evaluation.matching import match
    from retinart.train.model.predict import predict

    rng = np.random.default_rng(0)
    frames: Image = rng.integers(0, 255, (3, 96, 128, 3), np.uint8)
    model, variant, _ = load_checkpoint(noisy_checkpoint)
    expected = predict(model, variant, frames, Thresholds())
    for runtime in ("openvino", "onnxruntime"):
        with Detector(model_path, runtime=runtime) as detector:
            together = detector(list(frames))
            _, resized = detector.info.resize.apply(list(frames))
            inside = [r.detections_to_source(d) for r, d in zip(resized, expected, strict=True)]
            for frame, one, want in zip(frames, together, inside, strict=True):
                for found in (one, detector(frame)):
                    floor = float(want.confidence[-1])
                    assert match(want, found, floor=floor).same
