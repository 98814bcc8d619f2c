"""Which detections of two results for one image belong together, one to one."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How close two detections of one class have to be to form a pair.

    Attributes:
        score: largest difference of the scores.
        corner: largest difference of the corners, in pixels.
        iou: smallest intersection over union of the boxes.
    """

    score: float = inf
    corner: float = inf
    iou: float = 0.0


ROUNDING = Tolerance(score=2e-3, corner=0.5)  # what float arithmetic in another order can change


@dataclass(frozen=True, kw_only=True)
class Match:
    """How two sets of detections compare.

    Attributes:
        matched: pairs.
        missing, extra: detections without a partner, of the first and of the second set.
        counted: detections of both sets that `missing` and `extra` are out of.
        score_diff: largest difference of scores in a pair.
        corner_diff: largest difference of corners in a pair, in pixels.
    """

    matched: int = 0
    missing: int = 0
    extra: int = 0
    counted: int = 0
    score_diff: float = 0.0
    corner_diff: float = 0.0

    def __add__(self, other: Match) -> Match:
        """The comparison of both images together."""
        return Match(
            matched=self.matched + other.matched,
            missing=self.missing + other.missing,
            extra=self.extra + other.extra,
            counted=self.counted + other.counted,
            score_diff=max(self.score_diff, other.score_diff),
            corner_diff=max(self.corner_diff, other.corner_diff),
        )

    @property
    def same(self) -> bool:
        """Whether every detection has its partner."""
        return self.missing == self.extra == 0

    @property
    def share(self) -> float:
        """The share of the counted detections that have a partner; 0 where none is counted."""
        return 1 - (self.missing + self.extra) / self.counted if self.counted else 0.0


def box_iou(a: Boxes, b: Boxes) -> Boxes:
    """(A, B) intersection over union of boxes (A, 4) and (B, 4), xyxy."""
    corners = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    inter = np.maximum(corners[1] - corners[0], 0).prod(axis=2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b))
    union = area_a[:, None] + area_b - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))


def pair(a: Detections, b: Detections, tolerance: Tolerance) -> list[tuple[int, int]]:
    """Indices (into a, into b) of detections that belong together, the best overlap first."""
    iou, corner = box_iou(a.xyxy, b.xyxy), _corner_diff(a, b)
    fits = (iou >= tolerance.iou) & (corner <= tolerance.corner)
    fits &= np.abs(a.confidence[:, None] - b.confidence) <= tolerance.score
    fits &= a.class_id[:, None] == b.class_id
    rows, columns = np.nonzero(fits)
    order = np.lexsort((corner[rows, columns], -iou[rows, columns]))
    pairs: dict[int, int] = {}
    taken = set[int]()
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return list(pairs.items())


def match(
    expected: Detections, found: Detections, tolerance: Tolerance = ROUNDING, *, floor: float = 0.0
) -> Match:
    """Pair the detections of one image, and count those that have no partner.

    Args:
        expected, found: results for the same image.
        tolerance: of a pair.
        floor: score at which either list was cut. A detection within the score's tolerance of it
            may be in one list alone, so it is not counted.
    """
    pairs = pair(expected, found, tolerance)
    least = floor + (tolerance.score if tolerance.score < inf else 0.0)
    high = [np.flatnonzero(d.confidence > least).tolist() for d in (expected, found)]
    paired = [set(side) for side in zip(*pairs, strict=True)] or [set(), set()]
    missing, extra = (len(set(h) - p) for h, p in zip(high, paired, strict=True))
    corner = _corner_diff(expected, found)
    score = np.abs(expected.confidence[:, None] - found.confidence)
    return Match(
        matched=len(pairs),
        missing=missing,
        extra=extra,
        counted=sum(map(len, high)),
        score_diff=max((float(score[p]) for p in pairs), default=0.0),
        corner_diff=max((float(corner[p]) for p in pairs), default=0.0),
    )


def _corner_diff(a: Detections, b: Detections) -> Boxes:
    """(A, B) largest difference of the corners of boxes, in pixels."""
    return np.asarray(np.abs(a.xyxy[:, None] - b.xyxy).max(axis=2, initial=0), np.float32)
