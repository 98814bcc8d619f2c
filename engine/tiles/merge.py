"""Merge the detections of a picture and of its tiles.

    P  detections of all parts      M  those that stay

A box is *cut* if it touches a side of its tile that is not a side of the picture: what it shows of
the object may end there. The rules:

1. Boxes that are not cut go through the model's own NMS, by falling score, as in one picture.
2. A cut box is dropped if more than half of its area lies in a box of its class that stays,
   however high its score is. So half an object cannot stay beside the whole one.
3. Cut boxes that are left compare with each other by the same rule, the best first. They are of
   objects that no part shows whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections
from retinart.engine.model.info import Thresholds
from retinart.engine.reached_limits import Limit
from retinart.engine.runtime.nms import greedy_nms
from retinart.engine.tiles.grid import Span

_EDGE = 0.02  # share of a tile's side: a box that comes as near to it touches it
_HALF = 0.5
_CHUNK = 256  # boxes that are compared with others at once
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Part:
    """A picture or one of its tiles, with its detections in its own pixels."""

    rows: Span
    columns: Span
    found: Detections


def merge(
    parts: Sequence[Part],
    size: tuple[int, int],
    thresholds: Thresholds,
    *,
    plus_one: bool = False,
) -> Detections:
    """The detections of a picture.

    Args:
        parts: of it.
        size: (height, width) of the picture.
        thresholds: of the model.
        plus_one: areas count inclusive pixels.

    Returns:
        (M,) at most `detections_per_img`, best first.
    """
    offsets = [np.array([p.columns[0], p.rows[0]] * 2, np.float32) for p in parts]
    boxes = np.concatenate([p.found.xyxy + o for p, o in zip(parts, offsets, strict=True)])
    scores = np.concatenate([p.found.confidence for p in parts])
    labels = np.concatenate([p.found.class_id for p in parts])
    cut = np.concatenate([_cut(part, size) for part in parts])
    order = np.argsort(-scores, kind="stable")
    boxes, scores, labels, cut = boxes[order], scores[order], labels[order], cut[order]
    whole, rest = np.flatnonzero(~cut), np.flatnonzero(cut)
    most = thresholds.detections_per_img
    kept = whole[
        greedy_nms(
            boxes[whole],
            labels[whole].astype(np.intp),
            thresholds.nms_thresh,
            most,
            plus_one=plus_one,
        )
    ]
    rest = rest[_uncovered(boxes[rest], labels[rest], boxes[kept], labels[kept], most)]
    index = np.sort(np.concatenate([kept, rest]))[:most]
    limits: dict[Limit, float] = {}
    for part in parts:
        for name, score in part.found.limits.items():
            limits[name] = max(score, limits.get(name, 0.0))
    if len(index) == most:
        limits["detections"] = max(float(scores[index[-1]]), limits.get("detections", 0.0))
    return Detections(
        xyxy=boxes[index], confidence=scores[index], class_id=labels[index], limits=limits
    )


def _cut(part: Part, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Whether each box touches a side of its tile within the picture."""
    height, width = (span[1] - span[0] for span in (part.rows, part.columns))
    x1, y1, x2, y2 = part.found.xyxy.T
    touches = np.zeros(len(part.found), np.bool_)
    if part.columns[0] > 0:
        touches |= x1 <= _EDGE * width
    if part.columns[1] < size[1]:
        touches |= x2 >= (1 - _EDGE) * width
    if part.rows[0] > 0:
        touches |= y1 <= _EDGE * height
    if part.rows[1] < size[0]:
        touches |= y2 >= (1 - _EDGE) * height
    return touches


def _uncovered(
    boxes: Floats, labels: Labels, whole: Floats, of_whole: Labels, most: int
) -> npt.NDArray[np.intp]:
    """The cut boxes that stay, by falling score, at most so many.

    Args:
        boxes, labels: (C, 4) and (C,) of cut boxes, by falling score.
        whole, of_whole: of boxes that stay anyway.
        most: how many.
    """
    keep = np.empty(0, np.intp)
    for begin in range(0, len(boxes), _CHUNK):
        chunk = np.arange(begin, min(begin + _CHUNK, len(boxes)))
        b, c = boxes[chunk], labels[chunk]
        covered = _inside(b, c, whole, of_whole).any(axis=1)
        covered |= _inside(b, c, boxes[keep], labels[keep]).any(axis=1)
        chunk, b, c = chunk[~covered], b[~covered], c[~covered]
        later = np.tril(_inside(b, c, b, c), -1)  # [i, j]: the worse i lies in the better j
        alive = np.ones(len(chunk), np.bool_)
        for j in np.flatnonzero(later.any(axis=0)):
            if alive[j]:
                alive &= ~later[:, j]
        keep = np.concatenate([keep, chunk[alive]])
        if len(keep) >= most:
            break
    return keep[:most]


def _inside(
    boxes: Floats, labels: Labels, others: Floats, of_others: Labels
) -> npt.NDArray[np.bool_]:
    """(A, B) bool: whether more than half of each of A boxes lies in each of B of its class."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    same = labels[:, None] == of_others[None]
    return np.asarray((common > _HALF * area[:, None]) & same, np.bool_)
