"""Greedy NMS in NumPy against its definition, written once more with loops and whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retinart.engine.model.info import Thresholds
from retinart.engine.runtime.nms import detect_from_candidates, greedy_nms

Floats = npt.NDArray[np.float32]


def _reference(
    boxes: Floats, labels: npt.NDArray[np.intp], thresh: float, limit: int, one: int = 0
) -> list[int]:
    """A box stays when no better one that stayed, of its class, overlaps it above the threshold.

    Coordinates are whole eighths of a pixel, so that nothing is rounded.
    """
    num, den = float(np.float32(thresh)).as_integer_ratio()
    one *= 8
    keep: list[int] = []
    whole = [[int(v) for v in box] for box in boxes * 8]
    assert (np.array(whole).reshape(-1, 4) == boxes * 8).all()
    for i, (x1, y1, x2, y2) in enumerate(whole):
        for j in keep:
            a1, b1, a2, b2 = whole[j]
            width = max(0, min(x2, a2) - max(x1, a1) + one)
            height = max(0, min(y2, b2) - max(y1, b1) + one)
            inter = width * height
            area, other = (x2 - x1 + one) * (y2 - y1 + one), (a2 - a1 + one) * (b2 - b1 + one)
            if labels[i] == labels[j] and den * inter > num * (area + other - inter):
                break
        else:
            keep.append(i)
    return keep[:limit]


def _clusters(count: int, seed: int, classes: int = 3) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Boxes in eighths of a pixel about a few centres: heavy overlap, and exact in float32."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(50, 300, (max(1, count // 25), 2))
    centre = centres[rng.integers(0, len(centres), count)] + rng.normal(0, 8, (count, 2))
    size = np.abs(rng.normal(50, 15, (count, 2))) + 2
    boxes = np.round(np.concatenate([centre - size / 2, centre + size / 2], axis=1) * 8) / 8
    return boxes.astype(np.float32), rng.integers(0, classes, count)


@pytest.mark.parametrize("thresh", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize("count", [1, 40, 127, 128, 129, 420])
def test_as_the_definition_says(count: int, plus_one: bool, thresh: float) -> None:
    boxes, labels = _clusters(count, seed=count)
    expected = _reference(boxes, labels, thresh, 10_000, int(plus_one))
    found = greedy_nms(boxes, labels, thresh, 10_000, plus_one=plus_one)
    assert found.tolist() == expected
    assert found.dtype == np.intp
    if count >= 40 and 0 < thresh < 1:
        assert 1 < len(found) < count  # something is kept, something is suppressed


@pytest.mark.parametrize("limit", [1, 2, 30, 128, 129, 5000])
def test_a_limit_takes_the_best(limit: int) -> None:
    boxes, labels = _clusters(600, seed=1)
    everything = greedy_nms(boxes, labels, 0.5, 10_000)
    assert greedy_nms(boxes, labels, 0.5, limit).tolist() == everything[:limit].tolist()


def test_an_iou_at_the_threshold_stays() -> None:
    """IoU 1/2 exactly, and then a little more."""
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 2]], np.float32)
    labels = np.zeros(2, np.intp)
    assert greedy_nms(boxes, labels, 0.5, 9).tolist() == [0, 1]
    boxes[1, 3] = 2.125
    assert greedy_nms(boxes, labels, 0.5, 9).tolist() == [0]


def test_plus_one_counts_inclusive_pixels() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 5, 9, 14]], np.float32)  # 10x10, 50 shared: IoU 1/3
    labels = np.zeros(2, np.intp)
    assert greedy_nms(boxes, labels, 0.3, 9, plus_one=True).tolist() == [0]
    assert greedy_nms(boxes, labels, 0.3, 9).tolist() == [0, 1]  # 36 of 126: 2/7


def test_a_suppressed_box_suppresses_nothing() -> None:
    boxes = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], np.float32)
    assert greedy_nms(boxes, np.zeros(3, np.intp), 0.5, 9).tolist() == [0, 2]


@pytest.mark.parametrize("gap", [1, 130, 300])
def test_a_chain_over_chunks(gap: int) -> None:
    """The duplicates of one box lie far down the list, behind others of their own."""
    rng = np.random.default_rng(0)
    x = np.arange(gap, dtype=np.float32) * 100 + 1000
    between = np.stack([x, x * 0, x + 50, x * 0 + 50], axis=1)
    box = np.array([[0, 0, 50, 50]], np.float32)
    boxes = np.concatenate([box, between, box, between[rng.permutation(gap)], box])
    labels = np.zeros(len(boxes), np.intp)
    assert greedy_nms(boxes, labels, 0.5, 9999).tolist() == list(range(gap + 1))


def test_classes_do_not_touch_each_other() -> None:
    boxes = np.tile(np.array([[0, 0, 10, 10]], np.float32), (6, 1))
    labels = np.array([0, 1, 0, 2, 1, 2])
    assert greedy_nms(boxes, labels, 0.5, 9).tolist() == [0, 1, 3]


@pytest.mark.parametrize("thresh", [0.0, 0.5])
def test_boxes_without_area(thresh: float) -> None:
    """They overlap nothing, not even each other, and divide nothing by zero."""
    boxes = np.array(
        [[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10], [3, 3, 3, 9], [0, 0, 10, 10]], np.float32
    )
    labels = np.zeros(5, np.intp)
    assert greedy_nms(boxes, labels, thresh, 9).tolist() == [0, 1, 2, 3]
    assert _reference(boxes, labels, thresh, 9) == [0, 1, 2, 3]


def test_nothing_in_nothing_out() -> None:
    found = greedy_nms(np.empty((0, 4), np.float32), np.empty(0, np.intp), 0.5, 9)
    assert found.shape == (0,) and found.dtype == np.intp


def _pairs(
    boxes: Floats, scores: Floats, thresholds: Thresholds
) -> list[tuple[list[float], float, int]]:
    """The same with lists: every pair above the threshold, the best of them, then NMS."""
    pairs = sorted(
        (
            (-float(s), c * scores.shape[1] + k, c, k)
            for c, row in enumerate(scores)
            for k, s in enumerate(row)
            if s > np.float32(thresholds.score_thresh)
        ),
    )[: thresholds.nms_candidates]
    rows = [p[2] for p in pairs]
    labels = np.array([p[3] for p in pairs], np.intp)
    keep = _reference(
        boxes[rows].reshape(-1, 4), labels, thresholds.nms_thresh, thresholds.detections_per_img
    )
    return [(boxes[rows[i]].tolist(), -pairs[i][0], int(labels[i])) for i in keep]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"score_thresh": 0.5},
        {"score_thresh": 0.0, "nms_thresh": 0.3},
        {"detections_per_img": 7},
        {"nms_candidates": 90, "detections_per_img": 90},
        {"score_thresh": 1.0},
    ],
)
@pytest.mark.parametrize("ties", [False, True])
def test_candidates_to_detections(settings: dict[str, Any], ties: bool) -> None:
    rng = np.random.default_rng(8)
    boxes, _ = _clusters(150, seed=9)
    scores = rng.uniform(0, 1, (150, 3)).astype(np.float32) ** 2
    if ties:
        scores = np.round(scores * 8) / np.float32(8)
    thresholds = Thresholds(**settings)
    found = detect_from_candidates(boxes, scores, thresholds)
    assert [(b.tolist(), s, k) for b, s, k in found] == _pairs(boxes, scores, thresholds)
    assert found.xyxy.dtype == found.confidence.dtype == np.float32
    assert found.class_id.dtype == np.int32
    assert (np.diff(found.confidence) <= 0).all()
    assert (len(found) > 0) == (thresholds.score_thresh < 1)


def test_a_score_at_the_threshold_is_no_detection() -> None:
    boxes = np.array([[0, 0, 9, 9], [50, 50, 60, 60]], np.float32)
    scores = np.array([[0.5], [0.5000001]], np.float32)
    found = detect_from_candidates(boxes, scores, Thresholds(score_thresh=0.5))
    assert found.xyxy.tolist() == [[50, 50, 60, 60]]


def test_no_candidate_passes() -> None:
    found = detect_from_candidates(
        np.zeros((5, 4), np.float32), np.zeros((5, 3), np.float32), Thresholds()
    )
    assert len(found) == 0 and found.xyxy.shape == (0, 4)


def test_limits_that_were_reached() -> None:
    """Detections are counted after NMS, pairs before it, and a level's anchors of any class."""
    at = np.arange(20, dtype=np.float32)[:, None] * 100
    boxes = np.concatenate([at, at, at + 50, at + 50], axis=1)
    scores = np.full((20, 2), 0.1, np.float32)

    def limits(**settings: Any) -> dict[str, float]:
        found = detect_from_candidates(
            boxes, scores, Thresholds(**settings), cut_levels=(slice(0, 8), slice(8, 16))
        )
        assert found[:3].limits == found.limits
        return {name: round(score, 6) for name, score in found.limits.items()}

    assert limits(detections_per_img=40) == {"detections": 0.1, "candidates": 0.1}
    assert limits(detections_per_img=41) == {"candidates": 0.1}
    scores[3], scores[12, 0], scores[13, 1] = 0.01, 0.01, 0.01  # the second level is still full
    assert limits() == {"candidates": 0.1}
    scores[12] = 0.01
    assert limits() == {}
    assert limits(nms_candidates=34, detections_per_img=30) == {
        "detections": 0.1,
        "candidates": 0.1,
    }
    assert limits(nms_candidates=35, detections_per_img=35) == {"detections": 0.1}
