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


def detect_from_candidates(
    boxes: Floats, scores: Floats, thresholds: Thresholds, *, plus_one: bool = False
) -> Detections:
    """Class-wise greedy NMS over the best (anchor, class) pairs.

    Args:
        boxes: (C, 4) xyxy.
        scores: (C, K) in 0 to 1.
        thresholds: what counts as a detection.
        plus_one: areas count inclusive pixels.

    Returns:
        At most `detections_per_img` detections in the boxes' pixels, best first.
    """
    flat = scores.ravel()
    index = np.flatnonzero(flat > thresholds.score_thresh)
    order = np.argsort(-flat[index], kind="stable")[: thresholds.nms_candidates]
    index = index[order]
    row, label = np.divmod(index, scores.shape[1])
    xyxy, confidence = boxes[row], flat[index]
    keep = greedy_nms(
        xyxy, label, thresholds.nms_thresh, thresholds.detections_per_img, plus_one=plus_one
    )
    return Detections(
        xyxy=xyxy[keep], confidence=confidence[keep], class_id=label[keep].astype(np.int32)
    )


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
    one = np.float32(plus_one)
    threshold = np.float32(nms_thresh)
    low, high = boxes[:, :2], boxes[:, 2:] + one
    areas = np.prod(high - low, axis=1)
    rest = np.arange(len(boxes))
    keep: list[int] = []
    while rest.size and len(keep) < limit:
        best, rest = rest[0], rest[1:]
        keep.append(int(best))
        side = np.minimum(high[rest], high[best]) - np.maximum(low[rest], low[best])
        inter = np.prod(np.maximum(side, 0), axis=1)
        suppressed = inter > threshold * (areas[best] + areas[rest] - inter)
        rest = rest[~(suppressed & (labels[rest] == labels[best]))]
    return np.array(keep, np.intp)
