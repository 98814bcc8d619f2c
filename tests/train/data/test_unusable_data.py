"""Data that a training cannot use, or uses in part: said before the first step."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import retinart.train.trainer as trainer
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.evaluation.coco import load_coco
from retinart.train.data.batches import Batches
from retinart.train.data.rule import training_rule
from retinart.train.data.settings import NO_AUGMENTATION
from retinart.train.model.presets import preset
from retinart.train.settings import TrainSettings
from retinart.train.trainer import train
from support import write_images

SIZE = (64, 64)


@pytest.fixture
def settings(tiny_scenes: Path, tmp_path: Path) -> TrainSettings:
    """One epoch of one step."""
    return TrainSettings(
        annotations=tiny_scenes / "instances.json", images=tiny_scenes / "images", name="run",
        runs=tmp_path / "runs", size=SIZE, epochs=1, batch_size=4, lr=0.005,
    )  # fmt: skip


def _validated(settings: TrainSettings, path: Path, **lists: object) -> TrainSettings:
    """With validation data that are the training's, but for these lists."""
    content = json.loads(settings.annotations.read_text())
    path.write_text(json.dumps({**content, **lists}))
    return replace(settings, val_annotations=path, val_images=settings.images)


def test_validation_data_are_described(
    settings: TrainSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    boxes = [
        {"image_id": image_id, "category_id": 1, "bbox": [1, 1, 9, 9], "id": position}
        for position, image_id in enumerate((99, 1), 1)
    ]
    train(_validated(settings, tmp_path / "val.json", annotations=boxes))
    err = capfd.readouterr().err
    assert "validation: val.json: 4 images (3 without objects), 1 boxes, 6 classes\n" in err
    assert "validation: 1 unknown image ids (boxes dropped): 99 of annotation 1\n" in err
    assert err.index("validation: 1 unknown") < err.index("epoch 1/1")


@pytest.mark.parametrize(
    ("boxes", "why"),
    [
        ([], "no image has an object"),
        ([{"id": 1, "image_id": 99, "category_id": 1, "bbox": [1, 1, 9, 9]}], "1 unknown image"),
        (
            [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 1}],
            "all 1 objects are crowds",
        ),
    ],
    ids=["empty", "of other images", "crowds"],
)
def test_validation_data_without_objects_stop_the_training(
    settings: TrainSettings, tmp_path: Path, boxes: list[dict[str, Any]], why: str
) -> None:
    """Seen: AP 0.0 after every epoch, and no best.pt."""
    with pytest.raises(BadInput, match=rf"nothing to measure AP on in .*val\.json: .*{why}"):
        train(_validated(settings, tmp_path / "val.json", annotations=boxes))
    assert not settings.runs.exists()


def test_validation_classes_are_matched_before_the_training(
    settings: TrainSettings, tmp_path: Path
) -> None:
    names = [{"id": i, "name": f"name {i}"} for i in range(1, 7)]
    with pytest.raises(BadInput, match=r"share no class name.*model has disc.*have name 1"):
        train(_validated(settings, tmp_path / "val.json", categories=names))
    assert not settings.runs.exists()


def test_pycocotools_is_missed_before_the_training(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(MissingDependency, match="pycocotools"):
        train(_validated(settings, tmp_path / "val.json"))
    assert not settings.runs.exists()


def test_too_few_images_for_the_parts_of_a_batch(settings: TrainSettings) -> None:
    message = "4 images do not fill a batch of 6, which 2 .*Set `batch_size` to at most 4"
    with pytest.raises(BadInput, match=message):
        train(replace(settings, batch_size=6, accumulate=2))
    assert not settings.runs.exists()


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 1}, {"accumulate": 4}, {"batch_size": 1, "multiscale": (0.5, 1.0)}],
    ids=["batch", "parts", "scale"],
)
def test_batch_norms_of_one_pixel(settings: TrainSettings, change: dict[str, Any]) -> None:
    side = 64 if "multiscale" in change else 32
    given = replace(settings, size=(side, side), **change)
    with pytest.raises(BadInput, match="one image of 32x32 pixels gives batch norms nothing"):
        train(given)
    assert not settings.runs.exists()


def test_group_norms_of_one_pixel_train(settings: TrainSettings) -> None:
    train(replace(settings, size=(32, 32), accumulate=4, norm="group"))


def test_batches_by_aspect_that_cannot_be_are_said(tmp_path: Path) -> None:
    images = [
        {"id": i, "file_name": f"{i}.png", "height": h, "width": w}
        for i, (h, w) in enumerate([(40, 60), (40, 60), (40, 60), (60, 40)])
    ]
    write_images(tmp_path, *(str(i["file_name"]) for i in images))
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "i.json").write_text(json.dumps(content))

    def note(size: int, aspect: bool) -> str:
        return Batches(
            load_coco(tmp_path / "i.json", tmp_path),
            rule=training_rule(preset("tiny", 1), SIZE),
            batch_size=size,
            seed=0,
            augmentation=NO_AUGMENTATION,
            aspect_batches=aspect,
        ).note

    assert note(2, True) == (
        "no batches by aspect: 1 of 4 images are tall, too few for a batch of 2"
    )
    assert note(1, True) == note(2, False) == ""


def test_a_run_says_the_note_of_its_batches(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def noted(*args: Any, **kwargs: Any) -> Batches:
        batches = Batches(*args, **kwargs)
        batches.note = "a note"
        return batches

    monkeypatch.setattr(trainer, "Batches", noted)
    train(settings)
    assert "\na note\n" in capfd.readouterr().err
