"""Limits that pictures reached: all are counted, and a line is printed where it matters."""

from __future__ import annotations

import pytest

from retinart.engine.reached_limits import Limit, ReachedLimits


def _counted(*limits: dict[Limit, float]) -> ReachedLimits:
    reached = ReachedLimits()
    for one in limits:
        reached.add(one)
    return reached


def test_weak_detections_are_counted_and_not_told() -> None:
    """Most runs reached a limit, and printed lines on which a user could not act."""
    reached = _counted({"detections": 0.06}, {"candidates": 0.29}, {})
    assert reached.to_json() == {"detections": 1, "candidates": 1}
    assert reached.notes("image", 3) == []


@pytest.mark.parametrize(
    ("limits", "fix"),
    [
        ([{"detections": 0.3}, {"candidates": 0.2}], "raise `max_det`"),
        ([{"candidates": 0.9}, {"detections": 0.2}], "export with a higher --topk-candidates"),
    ],
)
def test_a_line_names_the_limit_that_matters(limits: list[dict[Limit, float]], fix: str) -> None:
    assert _counted(*limits).notes("frame", 2) == [
        f"1 of 2 frames may hold more detections with a score from 0.3 on: {fix}"
    ]


def test_one_line_for_both_limits() -> None:
    (line,) = _counted({"detections": 0.4, "candidates": 0.4}, {"detections": 0.5}).notes(
        "image", 9
    )
    assert line.startswith("2 of 9 images may hold more")
    assert line.endswith(": raise `max_det` and export with a higher --topk-candidates")
