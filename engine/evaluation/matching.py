"""Are two results the same? Detections matched one to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections

Boxes = npt.NDArray[np.float32]

SCORE_TOLERANCE = 2e-3
CORNER_TOLERANCE = 0.5  # pixels


@dataclass(frozen=True, kw_only=True)
class Match:
    """How two sets of detections compare.

    Attributes:
        matched: pairs of equal class, close scores and close corners.
        missing: detections of the first set without a partner.
        extra: detections of the second set without one.
        score_diff: largest difference of scores in a pair.
        corner_diff: largest difference of corners in a pair, in pixels.
    """

    matched: int
    missing: int
    extra: int
    score_diff: float
    corner_diff: float

    def __add__(self, other: Match) -> Match:
        """The comparison of both images together."""
        return Match(
            matched=self.matched + other.matched,
            missing=self.missing + other.missing,
            extra=self.extra + other.extra,
            score_diff=max(self.score_diff, other.score_diff),
            corner_diff=max(self.corner_diff, other.corner_diff),
        )

    @property
    def same(self) -> bool:
        """Whether every detection has its partner."""
        return self.missing == self.extra == 0


def box_iou(a: Boxes, b: Boxes) -> Boxes:
    """(A, B) intersection over union of boxes (A, 4) and (B, 4), xyxy."""
    corners = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    inter = np.maximum(corners[1] - corners[0], 0).prod(axis=2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b))
    union = area_a[:, None] + area_b - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))


def match(expected: Detections, found: Detections, *, floor: float = 0.0) -> Match:
    """Pair detections of equal class, scores within 2e-3 and corners within 0.5 px.

    Args:
        expected, found: results for the same image.
        floor: a score at which either list was cut. Detections within the score's tolerance of it
            may stand in one list alone, and are not counted when they do.
    """
    free = set(range(len(found)))
    missing, matched, score_diff, corner_diff = 0, 0, 0.0, 0.0
    for box, score, label in expected:
        corners = {
            j: float(np.abs(found.xyxy[j] - box).max())
            for j in free
            if found.class_id[j] == label and abs(found.confidence[j] - score) <= SCORE_TOLERANCE
        }
        near = min(corners, key=corners.__getitem__, default=None)
        if near is None or corners[near] > CORNER_TOLERANCE:
            missing += score > floor + SCORE_TOLERANCE
            continue
        free.discard(near)
        matched += 1
        score_diff = max(score_diff, abs(float(found.confidence[near]) - score))
        corner_diff = max(corner_diff, corners[near])
    extra = sum(bool(found.confidence[j] > floor + SCORE_TOLERANCE) for j in free)
    return Match(
        matched=matched,
        missing=int(missing),
        extra=extra,
        score_diff=score_diff,
        corner_diff=corner_diff,
    )
