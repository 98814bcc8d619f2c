"""Generated scenes: the same for a seed, true boxes, nothing half written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import retinart.train.data.scenes as scenes
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.media.images import read_image
from retinart.train.data.drawing import SHAPES, SceneObject, stamp
from retinart.train.data.scenes import make_scenes, render_scene, scene_video
from retinart.train.data.settings import SceneSettings


def test_a_seed_gives_the_same_files_and_another_gives_others(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        make_scenes(tmp_path / name, num=3, seed=seed)

    def content(name: str) -> list[bytes]:
        return [p.read_bytes() for p in sorted((tmp_path / name).rglob("*.*")) if p.is_file()]

    assert len(content("a")) == 4
    assert content("a") == content("b")
    assert not set(content("a")) & set(content("c"))


def test_scene_i_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    make_scenes(tmp_path / "two", num=2, seed=1)
    make_scenes(tmp_path / "four", num=4, seed=1)
    for name in ("000000.jpg", "000001.jpg"):
        first, second = (tmp_path / n / "images" / name for n in ("two", "four"))
        assert first.read_bytes() == second.read_bytes()


def test_the_annotations_are_clean_coco(tmp_path: Path) -> None:
    annotations = make_scenes(tmp_path / "s", num=20, seed=3)
    dataset = load_coco(annotations, tmp_path / "s" / "images")
    assert dataset.classes == SHAPES
    assert dataset.problems == ()
    assert len(dataset.images) == 20
    assert dataset.num_boxes > 20
    assert {read_image(i.path).shape for i in dataset.images} == {(256, 320, 3)}


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_an_outline_covers_the_area_that_it_says(shape: int) -> None:
    thing = SceneObject(
        shape=shape,
        center=(100.0, 90.0),
        radius=60.0,
        aspect=1.2,
        angle=0.4,
        colors=((0, 0, 0), (0, 0, 0)),
        fill="plain",
        seed=0,
    )
    covered = stamp(thing, (200, 220))
    assert covered is not None
    assert covered.alpha.sum() == pytest.approx(covered.area, rel=0.08)  # fillPoly adds the outline


def test_boxes_are_tight_and_hidden_objects_are_left_out() -> None:
    settings = SceneSettings(max_objects=20, min_visible=0.5)
    for seed in range(8):
        _, truth = render_scene(np.random.default_rng(seed), settings)
        width, height = (truth.boxes[:, i + 2] - truth.boxes[:, i] for i in (0, 1))
        assert (truth.areas <= width * height).all()
        assert (truth.areas >= 0.1 * width * height).all()
        assert (truth.boxes >= 0).all()
        assert (truth.boxes <= [320, 256, 320, 256]).all()
    # a far larger object on top hides a smaller one of any shape
    with_all = render_scene(np.random.default_rng(1), SceneSettings(max_objects=60))[1]
    strict = render_scene(
        np.random.default_rng(1), SceneSettings(max_objects=60, min_visible=0.95)
    )[1]
    assert len(strict.boxes) < len(with_all.boxes)


def test_an_object_alone_is_where_its_box_says() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        settings = SceneSettings(max_objects=1, radius=(30, 40))
        image, truth = render_scene(rng, settings)
        plain, _ = render_scene(np.random.default_rng(seed), SceneSettings(max_objects=0))
        assert image.shape == plain.shape == (256, 320, 3)
        for x1, y1, x2, y2 in truth.boxes:
            assert 15 <= x2 - x1 <= 90
            assert 15 <= y2 - y1 <= 90


def test_the_same_scenes_are_left_as_they_are(tmp_path: Path) -> None:
    first = make_scenes(tmp_path / "s", num=2, seed=1)
    before = first.stat().st_mtime_ns
    assert make_scenes(tmp_path / "s", num=2, seed=1).stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["mine.txt", "instances.json"])
def test_a_folder_with_something_else_is_not_touched(name: str, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).write_text("[" * 100_000)
    with pytest.raises(BadInput, match=r"exists already.*Choose another folder"):
        make_scenes(tmp_path / "s", num=2, seed=1)
    assert [p.name for p in tmp_path.rglob("*")] == ["s", name]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    original = scenes.render_scene

    def render(*args: object) -> object:
        interrupt()
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(scenes, "render_scene", render)
    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path / "s", num=5, seed=1)
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_deleted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command named a file that was not there, and ended with 0."""
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        result = real(self, target)
        shutil.rmtree(target)
        return result

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(BadInput, match="deleted or replaced while they were written"):
        make_scenes(tmp_path / "s", num=1, seed=1)


@pytest.mark.parametrize("size", [(32, 32), (33, 5000)])
def test_the_smallest_and_the_narrowest_scenes(tmp_path: Path, size: tuple[int, int]) -> None:
    """Objects as large as in others would not fit."""
    make_scenes(tmp_path / "s", num=12, seed=1, settings=SceneSettings(size=size))
    dataset = load_coco(tmp_path / "s" / "instances.json", tmp_path / "s" / "images")
    assert dataset.num_boxes > 5 and dataset.problems == ()


def test_a_seed_below_zero(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the seed is -1\. Give a whole number from 0 on\."):
        make_scenes(tmp_path / "s", num=1, seed=-1)


@pytest.mark.parametrize(("num", "size"), [(0, (256, 320)), (1, (16, 320)), (1, (32, 2**20))])
def test_settings_that_make_no_scenes(tmp_path: Path, num: int, size: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match="cannot make"):
        make_scenes(tmp_path / "s", num=num, seed=1, settings=SceneSettings(size=size))


def test_a_video_and_its_truth(tmp_path: Path) -> None:
    truths = scene_video(tmp_path / "v.mp4", frames=12, seed=4, size=(160, 192))
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(frame)
    assert len(frames) == len(truths) == 12
    assert frames[0].shape == (160, 192, 3)
    assert any(len(t.boxes) for t in truths)
    again = scene_video(tmp_path / "w.mp4", frames=6, seed=4, size=(160, 192))
    for a, b in zip(truths, again, strict=False):
        np.testing.assert_array_equal(a.boxes, b.boxes)
    moved = [t.boxes for t in truths if len(t.boxes) == len(truths[0].boxes)]
    assert np.abs(moved[-1] - moved[0]).max() > 1


def test_a_video_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot write the video"):
        scene_video(tmp_path / "v.nothing", frames=2, seed=4)
    assert list(tmp_path.iterdir()) == []


def test_instances_json_says_how_it_was_made(tmp_path: Path) -> None:
    info = json.loads(make_scenes(tmp_path / "s", num=1, seed=9).read_text())["info"]
    assert (info["seed"], info["num"], info["size"]) == (9, 1, [256, 320])
