"""Drawing: labels stay inside, classes have colours, and the picture itself is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.job.draw import class_color, collage, draw, write_jpeg
from retinart.engine.media.images import read_image
from support import make_picture

CLASSES = ["a rather long name", "b"]


def _one(box: list[float], label: int = 0) -> Detections:
    return Detections(
        xyxy=np.array([box], np.float32),
        confidence=np.array([0.5], np.float32),
        class_id=np.array([label], np.int32),
    )


@pytest.mark.parametrize(("height", "width"), [(240, 320), (2160, 3840)])
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_label_lies_inside_the_picture(height: int, width: int, corner: tuple[int, int]) -> None:
    """Wherever its box is, as large a filled area has the class's colour as in the middle."""
    blank = np.full((height, width, 3), 255, np.uint8)
    w, h = width / 10, height / 10

    def filled(left: float, top: float) -> int:
        drawn = draw(blank, _one([left, top, left + w, top + h]), CLASSES)
        return int((drawn == class_color(0)).all(axis=2).sum())

    expected = filled(width * 0.4, height * 0.4)
    assert filled(corner[0] * (width - w), corner[1] * (height - h)) > 0.8 * expected
    assert (blank == 255).all()


@pytest.mark.parametrize(("height", "width"), [(240, 320), (2160, 3840)])
def test_a_label_is_as_large_as_the_picture_asks(height: int, width: int) -> None:
    """It stands above its box, 1.5 to 8% of the height large."""
    blank = np.full((height, width, 3), 255, np.uint8)
    box = [width * 0.4, height * 0.5, width * 0.5, height * 0.6]
    drawn = draw(blank, _one(box), CLASSES)
    rows = np.flatnonzero((drawn != 255).any(axis=(1, 2)))
    assert 0.015 < (height * 0.5 - rows[0]) / height < 0.08


def test_each_class_has_a_colour_of_its_own() -> None:
    colors = {class_color(k) for k in range(80)}
    assert len(colors) == 80
    for k in range(79):
        difference = np.abs(np.subtract(class_color(k), class_color(k + 1))).max()
        assert difference > 60, "neighbours must be told apart"


def test_the_best_is_on_top() -> None:
    blank = np.full((100, 100, 3), 255, np.uint8)
    both = Detections(
        xyxy=np.array([[20, 40, 80, 80]] * 2, np.float32),
        confidence=np.array([0.9, 0.5], np.float32),
        class_id=np.array([1, 0], np.int32),
    )
    assert tuple(draw(blank, both, CLASSES)[80, 50]) == class_color(1)


def test_labels_do_not_hide_each_other() -> None:
    """Seen in crowds: "RBC 0.31" was cut by the label of the next box."""
    blank = np.full((240, 320, 3), 255, np.uint8)
    crowd = Detections(
        xyxy=np.array([[100, 100, 180, 160], [104, 103, 184, 163]], np.float32),
        confidence=np.array([0.9, 0.5], np.float32),
        class_id=np.array([0, 1], np.int32),
    )

    def filled(found: Detections, label: int) -> int:
        drawn = draw(blank, found, ["long name", "long name"])
        return int((drawn == class_color(label)).all(axis=2).sum())

    for label in (0, 1):
        assert filled(crowd, label) > 0.8 * filled(crowd[label], label)


def test_a_tracked_object_keeps_its_colour_and_differs_from_others_of_its_class() -> None:
    blank = np.full((240, 320, 3), 255, np.uint8)

    def colors(ids: list[int]) -> set[int]:
        found = Detections(
            xyxy=np.array([[20, 60, 90, 120], [180, 60, 250, 120]], np.float32),
            confidence=np.array([0.9, 0.5], np.float32),
            class_id=np.zeros(2, np.int32),
            tracker_id=np.array(ids, np.int32),
        )
        drawn = draw(blank, found, CLASSES)
        return {k for k in range(10) if (drawn == class_color(k)).all(axis=2).sum() > 100}

    assert colors([7, 3]) == {7, 3}
    assert colors([7, -1]) == {7, 0}  # not tracked yet: the class's colour


def test_pictures_side_by_side(tmp_path: Path) -> None:
    """Each as high as the first; rows as long as the longest."""
    pictures = [make_picture(0, 90, 120), make_picture(1, 180, 120), np.zeros((90, 9, 3), np.uint8)]
    row = collage(pictures, columns=3)
    assert row.shape == (90, 120 + 60 + 9, 3)
    rows = collage(pictures, columns=2, height=45)
    assert rows.shape == (90, 60 + 30, 3) and not rows[45:, 9:].any() and rows[:45, 60:].any()
    write_jpeg(tmp_path / "a.jpg", rows)
    assert read_image(tmp_path / "a.jpg").shape == rows.shape
