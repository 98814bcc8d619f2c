"""Merging at the borders of tiles: half an object never stays beside the whole one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retinart import Detections, Thresholds
from retinart.engine.tiles.grid import Tiles
from retinart.engine.tiles.merge import Part, merge

SIZE = (100, 200)
LEFT, RIGHT = ((0, 100), (0, 110)), ((0, 100), (90, 200))
WHOLE = ((0, 100), (0, 200))
LIMITS = Thresholds(score_thresh=0.05, nms_thresh=0.5, detections_per_img=100)


def _part(place: Any, *rows: tuple[float, ...]) -> Part:
    """A part with detections (x1, y1, x2, y2, score, class) in pixels of the picture."""
    data = np.array(sorted(rows, key=lambda r: -r[4]), np.float32).reshape(-1, 6)
    origin = np.array([place[1][0], place[0][0]] * 2, np.float32)
    found = Detections(
        xyxy=data[:, :4] - origin,
        confidence=data[:, 4],
        class_id=data[:, 5].astype(np.int32),
    )
    return Part(place[0], place[1], found)


def _merged(*parts: Part, limits: Thresholds = LIMITS) -> list[tuple[float, ...]]:
    found = merge(parts, SIZE, limits)
    columns = [found.xyxy, found.confidence[:, None], found.class_id[:, None]]
    return [tuple(np.round(row, 3).tolist()) for row in np.concatenate(columns, axis=1)]


@pytest.mark.parametrize("score", [0.3, 0.9])
def test_a_half_does_not_stay_beside_the_whole(score: float) -> None:
    """The object spans 60 to 130; each tile sees a part of it, with any score."""
    whole = (60, 20, 130, 60, 0.6, 0)
    left, right = (60, 20, 110, 60, score, 0), (90, 20, 130, 60, score, 0)
    parts = [_part(WHOLE, whole), _part(LEFT, left), _part(RIGHT, right)]
    assert _merged(*parts) == [pytest.approx(whole, abs=1e-3)]


def test_an_object_in_the_overlap_is_found_once() -> None:
    """It is whole in both tiles; the better box stays, as in one picture."""
    one, other = (92, 20, 108, 40, 0.6, 0), (92, 21, 108, 41, 0.7, 0)
    assert _merged(_part(LEFT, one), _part(RIGHT, other)) == [pytest.approx(other, abs=1e-3)]


def test_a_cut_box_stays_where_nothing_shows_the_object_whole() -> None:
    left = (60, 20, 110, 60, 0.6, 0)
    assert _merged(_part(WHOLE), _part(LEFT, left), _part(RIGHT)) == [pytest.approx(left, abs=1e-3)]
    # Of two cut boxes, the one that lies mostly in the better one goes.
    inner = (90, 20, 118, 60, 0.5, 0)
    assert len(_merged(_part(LEFT, left), _part(RIGHT, inner))) == 1
    far = (90, 20, 160, 60, 0.5, 0)
    assert len(_merged(_part(LEFT, left), _part(RIGHT, far))) == 2


def test_a_box_at_the_picture_s_own_side_is_not_cut() -> None:
    """Two objects, one before the other: NMS alone decides, as it does without tiles."""
    big, small = (0, 0, 60, 100, 0.5, 0), (0, 40, 20, 70, 0.6, 0)
    assert len(_merged(_part(LEFT, big, small))) == 2
    at_the_seam = (70, 40, 110, 70, 0.6, 0)
    behind = (60, 0, 180, 100, 0.5, 0)
    assert len(_merged(_part(WHOLE, behind), _part(LEFT, at_the_seam))) == 1


def test_other_classes_stay() -> None:
    whole, left = (60, 20, 130, 60, 0.6, 0), (60, 20, 110, 60, 0.9, 1)
    assert len(_merged(_part(WHOLE, whole), _part(LEFT, left))) == 2


def test_the_best_stay_where_there_are_too_many() -> None:
    limits = Thresholds(score_thresh=0.05, nms_thresh=0.5, detections_per_img=3)
    rows = [(10.0 * i, 0, 10.0 * i + 8, 8, 0.1 * i + 0.05, 0) for i in range(8)]
    cut = (60, 20, 110, 60, 0.95, 0)
    merged = _merged(_part(WHOLE, *rows), _part(LEFT, cut), limits=limits)
    assert [row[4] for row in merged] == pytest.approx([0.95, 0.75, 0.65], abs=1e-3)
    found = merge([_part(WHOLE, *rows)], SIZE, limits)
    assert found.limits == {"detections": pytest.approx(0.55)}


@pytest.mark.parametrize("seed", range(8))
def test_objects_smaller_than_the_overlap_are_found_once_each(seed: int) -> None:
    """Made scenes: each part sees what of each object lies in it, with a random score."""
    rng, size = np.random.default_rng(seed), (400, 600)
    tiles = Tiles(rows=int(rng.integers(1, 4)), columns=int(rng.integers(2, 4)), overlap=0.25)
    spans = tiles.of(size)
    small = 0.2 * min(min(r[1] - r[0], c[1] - c[0]) for r, c in spans)
    boxes = np.empty((0, 4))
    while len(boxes) < 25:
        side = rng.uniform(0.3 * small, small, 2)
        if len(boxes) < 3:
            side = rng.uniform(2 * small, 4 * small, 2)  # larger than the overlap: seen whole
        at = rng.uniform(0, np.array(size[::-1]) - side)
        box = np.concatenate([at, at + side])
        apart = (boxes[:, 2:] < box[:2]) | (boxes[:, :2] > box[2:])
        if apart.any(axis=1).all():
            boxes = np.concatenate([boxes, box[None]])
    parts = []
    for rows, columns in [((0, size[0]), (0, size[1])), *spans]:
        edge = np.array([columns[0], rows[0], columns[1], rows[1]])
        seen = np.concatenate(
            [np.maximum(boxes[:, :2], edge[:2]), np.minimum(boxes[:, 2:], edge[2:])], axis=1
        )
        shown = ((seen[:, 2:] - seen[:, :2]) > 2).all(axis=1)
        if not columns[0] and columns[1] == size[1] and rows == (0, size[0]):
            shown[3:] = False  # the whole picture shows the large ones alone
        scores = rng.uniform(0.1, 1, shown.sum())
        data = np.concatenate([seen[shown], scores[:, None], np.zeros((shown.sum(), 1))], axis=1)
        parts.append(_part((rows, columns), *map(tuple, data.tolist())))
    found = merge(parts, size, LIMITS)
    assert len(found) == len(boxes)
    distance = np.abs(found.xyxy[:, None] - boxes[None]).max(axis=2)
    assert (distance.min(axis=0) < 0.01).all()
