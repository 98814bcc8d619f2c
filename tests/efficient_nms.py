"""What EfficientNMS_TRT does, in NumPy: the judge of the plugin form, as no plugin runs here.

Written after the semantics that NVIDIA publishes (README and source of plugin/efficientNMSPlugin in
github.com/NVIDIA/TensorRT), with two inputs, box_coding 0, class_agnostic 0 and float32. Scores
below the threshold go ("<": an equal one stays), or stay as -32768 where the threshold is below
0.007; the rest is sorted by falling score, all classes together; the best 5000 go on (4096 in the
README); a box goes if its IoU with a kept one of its class is at least the threshold; the first
`max_output_boxes` come out, and all else is zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SELECTED = 5000
DENSE = 0.007

Floats = npt.NDArray[np.float32]
Outputs = tuple[npt.NDArray[np.int32], Floats, Floats, npt.NDArray[np.int32]]


def efficient_nms(
    boxes: Floats,
    scores: Floats,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_output_boxes: int,
    background_class: int,
    score_activation: int,
    class_agnostic: int,
    box_coding: int,
    seed: int | None = None,
) -> Outputs:
    """The four outputs for boxes (N, C, 4) and scores (N, C, K).

    The plugin collects pairs by atomic operations, so equal scores come in any order: that of a
    seed, or the file's for None.
    """
    assert (score_activation, class_agnostic, box_coding) == (0, 0, 0), "not written here"
    n, m = len(boxes), max_output_boxes
    count, classes = np.zeros((n, 1), np.int32), np.zeros((n, m), np.int32)
    kept_boxes, kept_scores = np.zeros((n, m, 4), np.float32), np.zeros((n, m), np.float32)
    for image in range(n):
        flat = scores[image].ravel()
        passes = flat >= np.float32(score_threshold)
        passes &= np.arange(flat.size) % scores.shape[2] != background_class
        index = np.flatnonzero(passes)
        if score_threshold < DENSE:
            flat, index = np.where(passes, flat, np.float32(-(1 << 15))), np.arange(flat.size)
        if seed is not None:
            index = np.random.default_rng(seed).permutation(index)
        index = index[np.argsort(-flat[index], kind="stable")][:SELECTED]
        row, label = np.divmod(index, scores.shape[2])
        dropped = np.zeros(len(index), np.bool_)
        for i in range(len(index)):
            if dropped[i]:
                continue
            k = int(count[image, 0])
            if k == m:
                break
            box = boxes[image, row[i]]
            count[image, 0] = k + 1
            kept_boxes[image, k], kept_scores[image, k] = box, flat[index[i]]
            classes[image, k] = label[i]
            overlap = iou(box, boxes[image, row]) >= np.float32(iou_threshold)
            dropped |= overlap & (label == label[i])
    return count, kept_boxes, kept_scores, classes


def iou(box: Floats, others: Floats) -> Floats:
    """(C,) IoU of one box with others (C, 4); areas without "+1", and 0 where nothing overlaps."""

    def area(b: Floats) -> Floats:
        width, height = b[..., 2] - b[..., 0], b[..., 3] - b[..., 1]
        return np.where((width <= 0) | (height <= 0), np.float32(0), width * height)

    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inter = area(np.concatenate([low, high], axis=1))
    union = area(box) + area(others) - inter
    zero = np.zeros_like(inter)
    return np.asarray(np.divide(inter, union, out=zero, where=(inter > 0) & (union > 0)))
