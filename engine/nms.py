"""Candidates to detections in NumPy: the form of NMS that is fastest on a CPU.

    C  candidate anchors      K  classes      M  detections

It gives the same detections as the graph's own matrix form (`retinart.export.nms`), which is also
what keeps either of them honest in the tests.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections
from retinart.engine.info import Thresholds

Floats = npt.NDArray[np.float32]

_CHUNK = 128  # candidates compared with each other at once


def detect_from_candidates(
    boxes: Floats,
    scores: Floats,
    thresholds: Thresholds,
    *,
    plus_one: bool = False,
    clip_to: tuple[int, int] | None = None,
) -> Detections:
    """Class-wise greedy NMS over the best (anchor, class) pairs.

    Args:
        boxes: (C, 4) xyxy.
        scores: (C, K) in 0 to 1.
        thresholds: what counts as a detection.
        plus_one: areas count inclusive pixels.
        clip_to: (height, width) in the boxes' pixels that they are cut to before NMS, or None.

    Returns:
        At most `detections_per_img` detections in the boxes' pixels, best first.
    """
    flat = scores.ravel()
    index = np.flatnonzero(flat > thresholds.score_thresh)
    order = np.argsort(-flat[index], kind="stable")[: thresholds.nms_candidates]
    index = index[order]
    row, label = np.divmod(index, scores.shape[1])
    xyxy, confidence = boxes[row], flat[index]
    if clip_to is not None:
        xyxy = clip_boxes(xyxy, clip_to, plus_one=plus_one)
    keep = greedy_nms(
        xyxy, label, thresholds.nms_thresh, thresholds.detections_per_img, plus_one=plus_one
    )
    return Detections(
        xyxy=xyxy[keep], confidence=confidence[keep], class_id=label[keep].astype(np.int32)
    )


def clip_boxes(boxes: Floats, size: tuple[int, int], *, plus_one: bool = False) -> Floats:
    """Boxes (..., 4) xyxy cut to (height, width); corners are inclusive when `plus_one`."""
    edge = np.array([size[1], size[0]] * 2, np.float32) - np.float32(plus_one)
    return np.asarray(np.clip(boxes, 0, edge), np.float32)


def greedy_nms(
    boxes: Floats,
    labels: npt.NDArray[np.intp],
    nms_thresh: float,
    limit: int,
    *,
    plus_one: bool = False,
) -> npt.NDArray[np.intp]:
    """Indices that greedy NMS keeps, at most `limit`.

    Args:
        boxes: (P, 4) xyxy in descending score.
        labels: (P,) classes; boxes of different classes never suppress each other.
        nms_thresh: a box goes when its IoU with a kept one is above this.
    """
    keep: list[np.intp] = []
    rest = np.arange(len(boxes))
    while rest.size:
        chunk, rest = rest[:_CHUNK], rest[_CHUNK:]
        inside = _suppresses(boxes, labels, chunk, chunk, nms_thresh, plus_one)
        alive, new = np.ones(len(chunk), np.bool_), list[np.intp]()
        for i, index in enumerate(chunk):
            if alive[i]:
                new.append(index)
                alive &= ~inside[i]  # of the ones before i nothing is asked any more
        keep += new
        if len(keep) >= limit:
            break
        hit = _suppresses(boxes, labels, np.array(new), rest, nms_thresh, plus_one)
        rest = rest[~hit.any(axis=0)]
    return np.array(keep[:limit], np.intp)


def _suppresses(
    boxes: Floats,
    labels: npt.NDArray[np.intp],
    better: npt.NDArray[np.intp],
    worse: npt.NDArray[np.intp],
    nms_thresh: float,
    plus_one: bool,
) -> npt.NDArray[np.bool_]:
    """(B, W) bool: whether each of B better boxes would suppress each of W worse ones."""
    one = np.float32(plus_one)
    a, b = boxes[better][:, None], boxes[worse]
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + one
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + one
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    area_a, area_b = ((x[..., 2] - x[..., 0] + one) * (x[..., 3] - x[..., 1] + one) for x in (a, b))
    above = inter > np.float32(nms_thresh) * (area_a + area_b - inter)
    return np.asarray(above & (labels[better][:, None] == labels[worse]), np.bool_)
