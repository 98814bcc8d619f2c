"""Labels never hide each other, a legend names many classes, and versions of OpenCV draw alike."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.job.draw import class_color, draw
from retinart.engine.job.labels import Style, draw_legend, place_labels

SIZE = (240, 320)
STYLE = Style.of(np.zeros((*SIZE, 3), np.uint8))


@pytest.mark.parametrize("seed", range(5))
def test_in_a_crowd_no_label_hides_another(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, [280, 200], (80, 2))
    boxes = np.concatenate([corners, corners + rng.integers(10, 40, (80, 2))], axis=1).tolist()
    texts = [["a long name 0.95", "0.95"]] * 80
    placed = [label for label in place_labels(boxes, texts, SIZE, STYLE) if label is not None]
    used = np.zeros(SIZE, int)
    for label in placed:
        part = used[label.pixels]
        assert part.shape == (label.height + label.base, label.width)  # inside of the picture
        part += 1
    assert used.max() == 1 and 10 < len(placed) < 80
    assert len({label.text for label in placed}) == 2


def test_the_best_box_chooses_first() -> None:
    first, second, third = place_labels(
        [[100, 100, 180, 160]] * 3, [["name 0.9", "0.9"]] * 3, SIZE, STYLE
    )
    assert first is not None and second is not None and third is not None
    assert first.top + first.height + first.base == 100 and second.top == 100
    taken = place_labels([[100, 100, 180, 160]], [["name 0.9"]], SIZE, STYLE, [first])
    assert taken == [second]


def test_no_room_no_label() -> None:
    boxes, texts = [[0, 0, 9, 9]] * 2, [["a long name", "0.9"]] * 2
    assert place_labels(boxes, texts, (12, 90), STYLE)[1] is None


def _found(classes: int, tracked: bool = False) -> Detections:
    left = 10 + 65 * np.arange(classes, dtype=np.float32)
    top = np.full(classes, 30, np.float32)
    return Detections(
        xyxy=np.stack([left, top, left + 20, top + 20], axis=1),
        confidence=np.full(classes, 0.9, np.float32),
        class_id=np.arange(classes, dtype=np.int32),
        tracker_id=np.arange(classes, dtype=np.int32) if tracked else None,
    )


def test_many_classes_get_a_legend() -> None:
    """In the corner at the bottom, as the boxes are at the top."""
    blank = np.full((*SIZE, 3), 255, np.uint8)
    names = ["class a", "class b", "class c", "class d", "class e"]
    few, many = draw(blank, _found(4), names), draw(blank, _found(5), names)
    assert (few[120:] == 255).all() and not (many[120:] == 255).all()
    for k in range(5):
        assert (many[120:] == class_color(k)).all(axis=2).any()
    tracked = draw(blank, _found(5, tracked=True), names)
    assert (tracked[120:] == 255).all()  # colours are of objects


def test_a_legend_of_too_many_classes_ends_with_a_number() -> None:
    canvas = np.zeros((*SIZE, 3), np.uint8)
    rows = draw_legend(canvas, [(f"class {k}", (9, 9, 9)) for k in range(80)], [], STYLE)
    assert rows[-1].text == f"and {80 - len(rows) + 1} more" and len(rows) <= 12
    assert sum(row.height + row.base for row in rows) <= SIZE[0] / 2


def test_every_version_of_opencv_draws_these_pixels() -> None:
    """4.10, 4.12 and 4.14 do. 5.0 sets other letters, and pyproject.toml keeps it out."""
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, [560, 400], (60, 2)), rng.uniform(20, 90, (60, 2))
    found = Detections(
        xyxy=np.concatenate([corners, corners + sides], axis=1).astype(np.float32),
        confidence=np.linspace(0.95, 0.3, 60, dtype=np.float32),
        class_id=rng.integers(0, 7, 60).astype(np.int32),
    )
    names = ["car", "traffic light", "person", "dog", "bicycle", "bus", "truck"]
    drawn = draw(np.full((480, 640, 3), 200, np.uint8), found, names)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == "6d6213b90346645a"
