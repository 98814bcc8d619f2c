"""Data that a training cannot use, or uses in part: said before the first step."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from retinart.engine.errors import BadInput, MissingDependency
from retinart.train.scenes import SceneSettings, make_scenes
from retinart.train.settings import TrainSettings
from retinart.train.trainer import train

SIZE = (64, 64)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(folder, num=4, seed=1, settings=SceneSettings(size=SIZE, max_objects=2))
    return folder


@pytest.fixture
def settings(scenes: Path, tmp_path: Path) -> TrainSettings:
    """One epoch of one step."""
    return TrainSettings(
        annotations=scenes / "instances.json", images=scenes / "images", name="run",
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
    boxes = [{"id": 1, "image_id": 99, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    train(_validated(settings, tmp_path / "val.json", annotations=boxes))
    err = capfd.readouterr().err
    assert "validation: val.json: 4 images (4 without objects), 0 boxes, 6 classes\n" in err
    assert "validation: 1 unknown image ids (boxes dropped): 99 of annotation 1\n" in err
    assert err.index("validation: 1 unknown") < err.index("epoch 1/1")


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
