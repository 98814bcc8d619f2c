"""The settings of a training: what is refused, and how the command line reaches them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from retinart.engine.errors import BadInput
from retinart.train.checkpoint import save_checkpoint
from retinart.train.data import Augmentation
from retinart.train.initial import start
from retinart.train.presets import preset
from retinart.train.retinanet import build_retinanet
from retinart.train.settings import TrainSettings, check_settings

SETTINGS = TrainSettings(annotations=Path("none"), images=Path("none"), name="none")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_grad_norm", -1.0, r"the longest gradient is -1\.0\. Give a number from 0 on"),
        ("max_grad_norm", math.nan, "the longest gradient is nan"),
        ("momentum", 1.0, "the momentum is 1. Give 0 or less than 1"),
        ("momentum", -0.1, r"the momentum is -0\.1"),
        ("milestones", (0.5, 8.0), r"the milestones are 0\.5, 8\. they are shares of the run"),
        ("milestones", (0.0,), "the milestones are 0"),
    ],
)
def test_impossible_numbers(field: str, value: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_settings(replace(SETTINGS, **{field: value}), 1)  # type: ignore[arg-type]


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
    augmentation = replace(Augmentation(), **{field: value})  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=message):
        check_settings(replace(SETTINGS, augmentation=augmentation), 1)


def test_what_is_possible_at_the_edges() -> None:
    check_settings(replace(SETTINGS, max_grad_norm=0.0, momentum=0.0, milestones=()), 1)
    edges = Augmentation(flip=1.0, flip_vertical=1.0, color=0.0, scale=(1.0, 1.0), min_visible=1.0)
    check_settings(replace(SETTINGS, augmentation=edges), 1)


def test_group_norms_cannot_be_frozen(tmp_path: Path) -> None:
    variant = replace(preset("tiny", 1), backbone_norm_groups=16)
    path = tmp_path / "old.pt"
    model = build_retinanet(variant)
    save_checkpoint(path, model=model, variant=variant, classes=["x"], training={})
    with pytest.raises(BadInput, match=r"old\.pt has group norms: none can be frozen"):
        start(replace(SETTINGS, weights=path, norm="frozen"), ["x"])
