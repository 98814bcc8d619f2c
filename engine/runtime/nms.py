"""Candidates to detections in NumPy: the form of NMS that is fastest on a CPU.

    C  candidate anchors      K  classes      M  detections

Every form of NMS gives the same detections as this one, to the last bit: the file's own
(`retinart.export.nms`), and a kernel on a GPU. These rules make it so:

- A pair of anchor and class enters if its score is above the threshold. NaN is not. The best
  `nms_candidates` pairs enter.
- Pairs are gone through by falling score. Of equal scores the pair with the lower index
  anchor * K + class comes first. One that is kept drops each later one of its class that it
  overlaps too much. This ends at M kept pairs.
- All is computed in float32. Each operation rounds once, to the nearest, so none are fused. `one`
  is 1 for a model whose corners are inclusive (`plus_one`), and 0 for others:

      area(b)     = ((b.x2 - b.x1) + one) * ((b.y2 - b.y1) + one)
      width(a, b) = max((min(a.x2, b.x2) - max(a.x1, b.x1)) + one, 0)     and height alike
      inter(a, b) = width(a, b) * height(a, b)
      a drops b   if inter(a, b) > ((area(a) + area(b)) - inter(a, b)) * nms_thresh

  So boxes without area drop nothing, and nothing drops them. A comparison with NaN is false.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections
from retinart.engine.model.info import Thresholds
from retinart.engine.reached_limits import Limit

Floats = npt.NDArray[np.float32]

_CHUNK = 128  # candidates compared at once; once the limit is full, the rest need no comparison


def detect_from_candidates(
    boxes: Floats,
    scores: Floats,
    thresholds: Thresholds,
    *,
    plus_one: bool = False,
    clip_to: tuple[int, int] | None = None,
    cut_levels: Sequence[slice] = (),
    class_ids: Sequence[int] | None = None,
) -> Detections:
    """Class-wise greedy NMS over the best (anchor, class) pairs.

    Args:
        boxes: (C, 4) xyxy.
        scores: (C, K) in 0 to 1.
        thresholds: what counts as a detection.
        plus_one: areas count inclusive pixels.
        clip_to: (height, width) to clip boxes to before NMS, in their pixels; or None.
        cut_levels: see `ModelInfo`; with them the result tells when a level passed on as many
            anchors as it may.
        class_ids: see `ModelInfo`; None for 0 to K - 1.

    Returns:
        At most `detections_per_img` detections in the boxes' pixels, best first.
    """
    flat = scores.ravel()
    index = np.flatnonzero(flat > thresholds.score_thresh)
    order = np.argsort(-flat[index], kind="stable")[: thresholds.nms_candidates]
    left_out = _best_left_out(scores, index, order, cut_levels)
    index = index[order]
    row, label = np.divmod(index, scores.shape[1])
    xyxy, confidence = boxes[row], flat[index]
    if clip_to is not None:
        xyxy = clip_boxes(xyxy, clip_to, plus_one=plus_one)
    keep = greedy_nms(
        xyxy, label, thresholds.nms_thresh, thresholds.detections_per_img, plus_one=plus_one
    )
    limits: dict[Limit, float] = {}
    if len(keep) == thresholds.detections_per_img:
        limits["detections"] = float(confidence[keep[-1]])
    if left_out is not None:
        limits["candidates"] = left_out
    label = label[keep] if class_ids is None else np.asarray(class_ids)[label[keep]]
    return Detections(
        xyxy=xyxy[keep],
        confidence=confidence[keep],
        class_id=label.astype(np.int32),
        limits=limits,
    )


def _best_left_out(
    scores: Floats,
    index: npt.NDArray[np.intp],
    order: npt.NDArray[np.intp],
    cut_levels: Sequence[slice],
) -> float | None:
    """The highest score that a pair may have which was left out before NMS; None if none was.

    Args:
        index: the pairs above the score threshold, rising.
        order: the positions in it of those that enter, best first.
    """
    bounds = [scores.ravel()[index[order[-1]]]] if len(order) < len(index) else []
    rows = index // scores.shape[1]
    for level in cut_levels:
        first, last = np.searchsorted(rows, (level.start, level.stop))
        if len(np.unique(rows[first:last])) == level.stop - level.start:
            bounds.append(scores[level].max(axis=1).min())
    return float(max(bounds)) if bounds else None


def clip_boxes(boxes: Floats, size: tuple[int, int], *, plus_one: bool = False) -> Floats:
    """Boxes (..., 4) xyxy clipped to (height, width); corners are inclusive when `plus_one`."""
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
        labels: (P,) classes; a box suppresses only boxes of its own class.
        nms_thresh: a box is dropped when its IoU with a kept one is above this.
    """
    suppresses = _Suppression(boxes, labels, nms_thresh, plus_one)
    keep = np.empty(0, np.intp)
    for begin in range(0, len(boxes), _CHUNK):
        chunk = np.arange(begin, min(begin + _CHUNK, len(boxes)))
        chunk = chunk[~suppresses(keep, chunk).any(axis=0)]
        inside = np.triu(suppresses(chunk, chunk), 1)  # a box suppresses only worse ones
        alive = np.ones(len(chunk), np.bool_)
        for i in np.flatnonzero(inside.any(axis=1)):
            if alive[i]:
                alive &= ~inside[i]
        keep = np.concatenate([keep, chunk[alive]])
        if len(keep) >= limit:
            break
    return keep[:limit]


class _Suppression:
    """Whether boxes suppress others; see `greedy_nms`."""

    def __init__(
        self,
        boxes: Floats,
        labels: npt.NDArray[np.intp],
        nms_thresh: float,
        plus_one: bool,
    ) -> None:
        self._left, self._top, self._right, self._bottom = np.ascontiguousarray(boxes.T)
        self._one, self._thresh = np.float32(plus_one), np.float32(nms_thresh)
        self._area = self._extent(self._left, self._right) * self._extent(self._top, self._bottom)
        self._labels = labels

    def __call__(
        self, better: npt.NDArray[np.intp], worse: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.bool_]:
        """(B, W) bool: whether each of B better boxes suppresses each of W worse ones."""
        a, b = better[:, None], worse
        inter = self._overlap(self._left, self._right, a, b)
        inter *= self._overlap(self._top, self._bottom, a, b)
        limit = self._area[a] + self._area[b]
        limit -= inter
        limit *= self._thresh
        return np.asarray((inter > limit) & (self._labels[a] == self._labels[b]), np.bool_)

    def _extent(self, low: Floats, high: Floats) -> Floats:
        return np.asarray(high - low + self._one, np.float32)

    def _overlap(
        self, low: Floats, high: Floats, a: npt.NDArray[np.intp], b: npt.NDArray[np.intp]
    ) -> Floats:
        """The common length of the sides [low, high] of boxes."""
        common = np.minimum(high[a], high[b])
        common -= np.maximum(low[a], low[b])
        common += self._one
        return np.maximum(common, 0, out=common)
