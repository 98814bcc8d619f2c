"""Pairs of detections: one to one, the best first, and what counts without a partner."""

from __future__ import annotations

import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.evaluation.matching import Match, Tolerance, box_iou, match, pair


def detections(*rows: tuple[float, float, int]) -> Detections:
    """Of (x of a box 100 wide, score, class)."""
    return Detections(
        xyxy=np.array([[x, 0, x + 100, 100] for x, _, _ in rows], np.float32).reshape(-1, 4),
        confidence=np.array([score for _, score, _ in rows], np.float32),
        class_id=np.array([label for _, _, label in rows], np.int32),
    )


def test_box_iou() -> None:
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert box_iou(a, b) == pytest.approx(np.array([[1, 1 / 3, 0], [0, 0, 0]]))
    assert box_iou(a, b[:0]).shape == (2, 0)


def test_the_best_overlap_is_paired_first() -> None:
    """The first detection would leave the second one without a partner if it chose first."""
    a, b = detections((10, 0.9, 1), (0, 0.8, 1)), detections((1, 0.9, 1), (30, 0.9, 1))
    assert pair(a, b, Tolerance(iou=0.5)) == [(1, 0), (0, 1)]
    assert pair(a, b, Tolerance(iou=0.9)) == [(1, 0)]
    assert pair(a, b, Tolerance(score=0.05)) == [(0, 0)]
    assert pair(a, detections(), Tolerance()) == pair(detections(), a, Tolerance()) == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(0.4, 0.901, 1), (300, 0.5, 2)], (2, 0, 0)),
        ([(0.6, 0.9, 1), (300, 0.5, 2)], (1, 1, 1)),  # its box is elsewhere
        ([(0, 0.897, 1), (300, 0.5, 2)], (1, 1, 1)),  # its score is another
        ([(0, 0.9, 0), (300, 0.5, 2)], (1, 1, 1)),  # its class is another
        ([(0, 0.9, 1), (0, 0.9, 1), (300, 0.5, 2)], (2, 0, 1)),  # twice: one to one
        ([], (0, 2, 0)),
    ],
)
def test_what_has_no_partner_counts(
    found: list[tuple[float, float, int]], expected: tuple[int, int, int]
) -> None:
    result = match(detections((0, 0.9, 1), (300, 0.5, 2)), detections(*found))
    assert (result.matched, result.missing, result.extra) == expected
    assert result.same is (expected == (2, 0, 0)) and result.counted == 2 + len(found)


def test_near_the_floor_a_detection_may_be_in_one_list_alone() -> None:
    want, found = detections((0, 0.9, 1), (300, 0.0515, 2)), detections((0, 0.9, 1))
    assert match(want, found, floor=0.05).same
    assert match(want, found).missing == 1
    assert match(want, found, floor=0.05).counted == 2


def test_the_largest_differences_are_of_pairs() -> None:
    found = match(detections((0, 0.9, 1), (300, 0.5, 2)), detections((0.25, 0.9, 1), (9, 0.5, 1)))
    assert (found.corner_diff, found.score_diff) == (0.25, 0)
    both = found + Match(matched=1, counted=2, score_diff=0.1)
    assert (both.matched, both.corner_diff, both.score_diff) == (2, 0.25, 0.1)
    assert both.share == pytest.approx(1 - 2 / 6) and Match().share == 0
