"""Files that hold no RetinaNet, and what a file says besides its weights."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retinart.engine.errors import BadInput
from retinart.engine.model.variant import octave_sizes
from retinart.export.checkpoint import load_any
from retinart.export.checkpoint_projects import PROJECTS
from support import named, project_state

ONE = torch.zeros(1)
STAGES = {f"layer{i}.0.conv1.weight": ONE for i in range(1, 5)}
V1 = "torchvision retinanet_resnet50_fpn"


def keys(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, ONE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"model": keys("model.0.conv.weight", "model.24.m.0.weight")},
            "its 2 tensors are called model.0, model.24, as in no known project",
        ),
        (
            {f"backbone.body.{k}": v for k, v in STAGES.items()}
            | keys("rpn.head.cls_logits.weight", "roi_heads.box_predictor.cls_score.weight"),
            f"4 of its 6 tensors are recognised as {V1} (before 0.13)'s: backbone.body; "
            "not recognised: rpn.head, roi_heads.box_predictor; "
            "missing: head.classification_head.cls_logits.weight",
        ),
        (
            keys("backbone.features.0.weight", "head.classification_head.module_list.0.weight"),
            "as in no known project",
        ),
        (
            {
                "model": keys(
                    "backbone.bottom_up.stem.conv1.weight", "roi_heads.box_head.fc1.weight"
                )
            },
            "1 of its 2 tensors are recognised as detectron2's: backbone.bottom_up; not "
            "recognised: roi_heads.box_head; missing: head.cls_score.weight",
        ),
        (
            {"meta": {}, "state_dict": keys("neck.lateral_convs.0.conv.weight", "bbox_head.gfl")},
            "1 of its 2 tensors are recognised as mmdetection's: neck.lateral_convs; not "
            "recognised: bbox_head.gfl; missing: bbox_head.retina_cls.weight",
        ),
        (
            {"optimizer": {"state": {0: {"momentum_buffer": ONE}}}, "epoch": 3},
            "a dict without a model's tensors; it holds optimizer, epoch",
        ),
        ({}, "a dict without a model's tensors. Save"),
        ([1, 2, 3], "a list without a model's tensors. Save"),
        (
            {
                "head.classification_head.cls_logits.weight": torch.zeros(45),
                "head.classification_head.conv.0.0.weight": ONE,
            },
            f"looks like {V1}, but its tensors do not fit: 3 differ:\n"
            "  missing     head.regression_head.bbox_reg.weight\n"
            "  missing     backbone.fpn.inner_blocks.0.0.weight\n"
            "  missing     backbone.body.layer1.0.conv2.weight\n"
            "Nothing was loaded",
        ),
    ],
    ids=["yolo", "faster", "ssd", "faster d2", "gfl", "optimizer", "empty", "list", "half"],
)
def test_what_was_recognised_and_what_not(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(BadInput) as caught:
        load_any(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_flat_tensors_are_misshapen(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    flat = {"head.regression_head.bbox_reg.weight": torch.zeros(36)}
    torch.save({**project_state(V1), **flat}, path)
    message = r"misshapen   head\.regression_head\.bbox_reg\.weight: 36, expected 4 dimensions"
    with pytest.raises(BadInput, match=message):
        load_any(path)


def test_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    script, tensors, model = (tmp_path / name for name in ("a.pt", "b.pt", "c.onnx"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of scripts as a thing of the past
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(script))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    tensors.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    model.write_bytes(b"\x08\x08")
    for path, kind in (
        (script, "a TorchScript program"),
        (tensors, "a safetensors file"),
        (model, "an ONNX model"),
    ):
        with pytest.raises(BadInput, match=f"is {kind}, not a checkpoint"):
            load_any(path)


@pytest.mark.parametrize("source", PROJECTS, ids=lambda source: source.name)
def test_keys_can_be_turned_back(source: Any) -> None:
    """Every key of a model of this source is of this source, and of no other."""
    state = project_state(source.name, "resnet50")
    assert [s for s in PROJECTS if s.matches(list(state))] == [source]
    assert [source.original(str(source.translate(key))) for key in state] == list(state)


def test_keys_of_torchvision_before_0_13_can_be_turned_back(shared: Callable[..., Path]) -> None:
    file = shared("golden", "torchvision_retinanet_resnet50_fpn", "legacy_keys.json")
    theirs, source = list(json.loads(file.read_text())), PROJECTS[0]
    assert [source.original(str(source.translate(key))) for key in theirs] == theirs


@pytest.mark.parametrize(
    ("name", "backbone", "suffix"),
    [
        ("detectron2", "resnet101", ".pkl"),
        ("detectron2", "resnet101", ".pth"),
        ("mmdetection", "resnet18", ".pth"),
        ("mmdetection", "resnet101", ".pth"),
        ("mmdetection", "resnext101_32x4d", ".pth"),
        ("mmdetection", "resnext101_64x4d", ".pth"),
        ("odtk", "resnet18", ".pth"),
        ("odtk", "resnet34", ".pth"),
        ("odtk", "resnet101", ".pth"),
        ("odtk", "resnet152", ".pth"),
        ("odtk", "resnext50_32x4d", ".pth"),
        ("odtk", "resnext101_32x8d", ".pth"),
        ("torchvision retinanet_resnet50_fpn_v2", "resnet101", ".pth"),
    ],
)
def test_published_depths_are_recognised(
    name: str, backbone: str, suffix: str, tmp_path: Path
) -> None:
    state = project_state(name, backbone)
    path = tmp_path / f"model{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in state.items()}}, 4))
    else:
        torch.save({"state_dict": state}, path)
    loaded = load_any(path)
    path.unlink()
    assert (loaded.variant.source, loaded.variant.backbone) == (name, backbone)
    ours = loaded.model.state_dict()
    for key, value in state.items():
        assert (ours[str(named(name).translate(key))] == value).all(), key


def mmdetection_file(path: Path, meta: Any) -> Path:
    torch.save({"meta": meta, "state_dict": project_state("mmdetection", num_classes=2)}, path)
    return path


CAFFE = """
data_preprocessor = dict(
    type='DetDataPreprocessor',
    mean=[103.53, 116.28, 123.675],
    std=[
        1.0,
        1.0,
        1.0,
    ],
    bgr_to_rgb=False)
backbone = dict(type='ResNet', depth=50, style='caffe')
bbox_coder = dict(target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0])
"""
PYTORCH = """
model = dict(backbone=dict(type='ResNet', depth=50, style='pytorch'))
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
"""


def test_mmdetection_s_meta(tmp_path: Path) -> None:
    """Names, and the style that the keys do not tell, in the places of its versions 2 and 3."""
    path = tmp_path / "model.pth"
    plain = load_any(mmdetection_file(path, {}))
    assert plain.classes == ("class_0", "class_1") and not plain.variant.stride_in_1x1

    meta: Any = {"dataset_meta": {"classes": ("cat", "Cat")}, "cfg": CAFFE}
    loaded = load_any(mmdetection_file(path, meta))
    v = loaded.variant
    assert loaded.classes == ("cat", "Cat")
    assert (v.stride_in_1x1, v.channel_order, v.std) == (True, "bgr", (1.0, 1.0, 1.0))
    assert v.mean == (103.53, 116.28, 123.675)
    again = load_any(path, settings=["stride_in_1x1=false"]).variant
    assert not again.stride_in_1x1 and again.channel_order == "bgr"

    meta = {"CLASSES": ["a", "b"], "config": PYTORCH}
    loaded = load_any(mmdetection_file(path, meta))
    assert loaded.classes == ("a", "b") and loaded.variant == plain.variant

    for odd in ({"CLASSES": "ab"}, {"CLASSES": ["a"] * 80}, {"cfg": "style='caffe'"}, "meta"):
        loaded = load_any(mmdetection_file(path, odd))
        assert loaded.classes == ("class_0", "class_1") and loaded.variant == plain.variant


def test_odtk_s_anchors(tmp_path: Path) -> None:
    """They stand beside the weights. Anchors of rotated boxes are refused."""
    path = tmp_path / "model.pth"
    content = {"ratios": [1.0, 2.0, 0.5], "scales": [4 * 2 ** (i / 3) for i in range(3)]}
    torch.save({"state_dict": project_state("odtk"), **content, "angles": None}, path)
    usual = load_any(path).variant
    assert usual.anchor_sizes == octave_sizes() and usual.anchor_ratios == (1.0, 2.0, 0.5)

    fields: Any = {"anchor_ratios": (1.0, 3.0), "anchor_sizes": octave_sizes((8, 16, 32, 64, 128))}
    content = {"ratios": [1.0, 3.0], "scales": [2 ** (i / 3) for i in range(3)]}
    torch.save({"state_dict": project_state("odtk", **fields), **content}, path)
    other = load_any(path).variant
    assert other.num_anchors == 6 and other.anchor_ratios == (1.0, 3.0)
    assert other.anchor_sizes[0] == pytest.approx((8.0, 8 * 2 ** (1 / 3), 8 * 2 ** (2 / 3)))

    torch.save({"state_dict": project_state("odtk"), "angles": [-0.5, 0.0, 0.5]}, path)
    with pytest.raises(BadInput, match="this odtk checkpoint detects rotated boxes"):
        load_any(path)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_detectron2_s_pixels(suffix: str, tmp_path: Path) -> None:
    """Older files hold its mean and std as buffers; a torch file may be called .pkl too."""
    path = tmp_path / f"model{suffix}"
    state = project_state("detectron2")
    torch.save({"model": state}, path)
    assert load_any(path).variant.std == (1.0, 1.0, 1.0)
    pixels = {"mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)}
    state |= {f"pixel_{k}": torch.tensor(v).reshape(3, 1, 1) for k, v in pixels.items()}
    torch.save({"model": state}, path)
    variant = load_any(path).variant
    assert (variant.mean, variant.std) == (pixels["mean"], pixels["std"])
    torch.save({"model": state | {"pixel_std": torch.ones(1)}}, path)
    assert load_any(path).variant.std == (1.0, 1.0, 1.0)
