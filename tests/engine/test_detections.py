"""The result object: what picks of it, and what it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput


def _three() -> Detections:
    return Detections(
        xyxy=np.arange(12, dtype=np.float32).reshape(3, 4),
        confidence=np.array([0.9, 0.5, 0.1], np.float32),
        class_id=np.array([2, 0, 1], np.int32),
    )


@pytest.mark.parametrize(
    ("index", "classes"),
    [
        (0, [2]),
        (-1, [1]),
        (np.int64(1), [0]),
        (slice(1, None), [0, 1]),
        (np.array([True, False, True]), [2, 1]),
        (np.array([2, 0]), [1, 2]),
        (np.array([], np.intp), []),
    ],
)
def test_what_an_index_picks(index: Any, classes: list[int]) -> None:
    found = _three()
    picked = found[index]
    assert picked.class_id.tolist() == classes and picked.xyxy.shape == (len(classes), 4)
    for box, score, label in picked:
        (place,) = np.flatnonzero(found.class_id == label)
        assert box.tolist() == found.xyxy[place].tolist() and score == found.confidence[place]


def test_a_position_without_a_detection() -> None:
    with pytest.raises(IndexError):
        _three()[3]


def test_two_results_compare_by_identity() -> None:
    """Arrays have no one answer to ==; the field by field comparison raised."""
    one, other = _three(), _three()
    assert one == one and one != other
    assert len({one, other, one}) == 2


def test_shapes_that_do_not_go_together() -> None:
    with pytest.raises(
        BadInput, match=r"Detections\.xyxy has shape \(2, 4\)\. It must be \(1, 4\)"
    ):
        Detections(
            xyxy=np.zeros((2, 4), np.float32),
            confidence=np.zeros(1, np.float32),
            class_id=np.zeros(1, np.int32),
        )


def test_they_print_as_one_line() -> None:
    """Seen: 100 rows of arrays."""
    found = Detections(
        xyxy=np.zeros((3, 4), np.float32),
        confidence=np.array([0.9, 0.5, 0.05], np.float32),
        class_id=np.array([4, 1, 4], np.int32),
    )
    assert repr(found) == "<Detections: 3, scores 0.90 to 0.05, class ids [1, 4]>"
    assert repr(found[:0]) == "<Detections: 0>"
