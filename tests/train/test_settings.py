"""The settings of a training: what is refused, and how the command line reaches them."""

from __future__ import annotations

import math
import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest

from retinart.cli import build_parser, main, train
from retinart.engine.errors import BadInput
from retinart.train.data.settings import Augmentation
from retinart.train.initial import start
from retinart.train.model.checkpoint import save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from retinart.train.settings import TrainSettings

SETTINGS = TrainSettings(annotations=Path("none"), images=Path("none"), name="none")

# what the command line is given, and what comes of it: no field of the record is out of its reach
FLAGS = shlex.split(
    """
    --images i --annotations a --no-check-images --val-images vi --val-annotations va --eval-every 3
    --workers 5 --model resnet18 --set anchor_center=0.25 --weights w --backbone-weights b
    --norm group --prior 0.1 --height 64 --width 96 --multiscale 0.5 2 --aspect-batches --flip 0.1
    --flip-vertical 0.2 --color 0.3 --zoom 0.4 1.5 --min-visible 0.6 --epochs 7 --batch 8
    --accumulate 2 --optimizer adamw --lr 0.9 --schedule step --milestones 0.5 0.7 0.8 --warmup 10
    --momentum 0.11 --weight-decay 0.12 --max-grad-norm 0 --ema 0.13 --precision bf16
    --cls-loss ce --box-loss giou --beta 0.14 --box-weight 0.15 --alpha 0.16 --gamma 0.17
    --ohem-batch 18 --ohem-nms 0.19 --fg-iou-thresh 0.7 --bg-iou-thresh 0.3
    --no-low-quality-matches --seed 20 --name n --out o --threads 21 --device d
"""
)


def _parsed(*flags: str) -> TrainSettings:
    args = build_parser().parse_args(["train", *flags])
    return train.with_fields(train.settings_of(args), args.set)


def test_the_command_line_reaches_every_setting() -> None:
    plain = _parsed("--images", "none", "--annotations", "none", "--name", "none")
    assert plain == SETTINGS  # the same defaults
    ours = _parsed(*FLAGS)
    for mine, theirs in (
        (ours, plain), (ours.loss, plain.loss), (ours.augmentation, plain.augmentation),
    ):  # fmt: skip
        for field in fields(mine):
            if field.name == "quantize":  # it does not go with the others
                continue
            assert getattr(mine, field.name) != getattr(theirs, field.name), field.name
    rounded = _parsed(
        "--images",
        "a",
        "--annotations",
        "b",
        "--weights",
        "w",
        "--norm",
        "frozen",
        "--quantize",
        "r",
    )
    assert rounded.quantize == Path("r")
    assert ours.milestones == (0.5, 0.7, 0.8)
    assert (ours.loss.fg_iou_thresh, ours.loss.bg_iou_thresh) == (0.7, 0.3)
    assert (ours.loss.ohem_batch, ours.loss.ohem_nms) == (18, 0.19)
    assert (ours.momentum, ours.augmentation.min_visible) == (0.11, 0.6)


def test_a_resumed_run_takes_no_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "--resume", str(tmp_path)]
    assert main([*given, "--lr", "0.5", "--no-check-images", "--zoom", "1", "1"]) == 2
    assert "does not go with --no-check-images, --zoom, --lr: a run goes on with" in (
        capsys.readouterr().err
    )
    assert main([*given, "--lr", "0.02", "--zoom", "0.8", "1.25"]) == 2  # the defaults: no harm
    assert "holds no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_grad_norm", -1.0, r"the longest gradient is -1\.0\. Give a number from 0 on"),
        ("max_grad_norm", math.nan, "the longest gradient is nan"),
        ("momentum", 1.0, "the momentum is 1. Give 0 or less than 1"),
        ("momentum", -0.1, r"the momentum is -0\.1"),
        ("milestones", (0.5, 8.0), r"the milestones are 0\.5, 8: they are shares of the run"),
        ("milestones", (0.0,), "the milestones are 0"),
    ],
)
def test_impossible_numbers(field: str, value: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(SETTINGS, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flip", 1.5, r"the probability of a flip is 1\.5\. Give a number from 0 to 1"),
        ("flip_vertical", -1.0, "the probability of a vertical flip is -1"),
        ("color", -0.2, r"the strength of the colour jitter is -0\.2"),
        ("color", math.nan, "the strength of the colour jitter is nan"),
        ("min_visible", 2.0, "the share of an object that must be visible is 2"),
        ("scale", (1.4, 0.7), r"the range of the zoom is 1\.4 to 0\.7\. Give a lower and a high"),
        ("scale", (0.0, 1.0), "the range of the zoom is 0 to 1"),
        ("scale", (1.0, math.inf), "the range of the zoom is 1 to inf"),
    ],
)
def test_impossible_augmentation(field: str, value: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Augmentation(**{field: value})  # type: ignore[arg-type]


def test_what_is_possible_at_the_edges() -> None:
    replace(SETTINGS, max_grad_norm=0.0, momentum=0.0, milestones=())
    Augmentation(flip=1.0, flip_vertical=1.0, color=0.0, scale=(1.0, 1.0), min_visible=1.0)


def test_group_norms_cannot_be_frozen(tmp_path: Path) -> None:
    variant = replace(preset("tiny", 1), backbone_norm_groups=16)
    path = tmp_path / "old.pt"
    model = build_retinanet(variant)
    save_checkpoint(path, model=model, variant=variant, classes=["x"], training={})
    with pytest.raises(BadInput, match=r"old\.pt has group norms, not batch norms"):
        start(replace(SETTINGS, weights=path, norm="frozen"), ["x"])
