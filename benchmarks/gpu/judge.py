"""What counts as right: bars for detections of each precision, and bounds for the rest.

A figure over its limit is a fault, and a fault fails its step: `judged` sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinart.benchmarks.timing.worker import Incomplete
from retinart.engine.detections import Detections
from retinart.engine.evaluation.matching import box_iou
from retinart.engine.model.info import Precision, Thresholds

Figures = dict[str, Any]
FAULTS = "over the limit"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """How close detections have to be.

    Attributes:
        score: largest difference of the scores in a pair.
        iou: smallest intersection over union of the boxes in a pair.
        share: smallest share of detections that have a partner.
    """

    score: float
    iou: float
    share: float


# An engine computes what is written in its file, as ONNX Runtime does: FP32 leaves roundings, FP16
# moves scores by thousandths, INT8 by a quantum here and there, which the heads' towers enlarge.
# Seen between ONNX Runtime and OpenVINO with files of `tiny` (12 scenes, 8 COCO images): at INT8's
# bar a share of 0.978 to 0.994, at FP16's 0.995 and 1, at FP32's 0.997 and 0.999. Of FP32 all those
# alone are the padding's (see SLACK), as scores and corners of the pairs are equal to 1e-5.
BARS: dict[Precision, Bar] = {
    "fp32": Bar(score=0.002, iou=0.98, share=1.0),
    "fp16": Bar(score=0.02, iou=0.9, share=0.97),
    "int8": Bar(score=0.1, iou=0.9, share=0.93),
    "int8+fp16": Bar(score=0.1, iou=0.9, share=0.93),
}
# OpenVINO's NMS is another: it knows where the image ends, and a file's knows the frame alone.
SLACK = {"onnxruntime": 0.0, "openvino": 0.02}
GROWTH = {"host MB": 16, "GPU MB": 8}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two sets of detections of the same images compare.

    Attributes:
        counted: detections of either set that score above the floor.
        alone: those of them that have no partner in the other set.
        score_diff: largest difference of scores in a pair.
        corner_diff: largest difference of corners in a pair, in pixels of the image.
    """

    counted: int = 0
    alone: int = 0
    score_diff: float = 0.0
    corner_diff: float = 0.0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            counted=self.counted + other.counted,
            alone=self.alone + other.alone,
            score_diff=max(self.score_diff, other.score_diff),
            corner_diff=max(self.corner_diff, other.corner_diff),
        )

    @property
    def share(self) -> float:
        """Of the detections that count, those with a partner; 0 when there are none."""
        return 1 - self.alone / self.counted if self.counted else 0.0

    def figures(self) -> Figures:
        """For the report."""
        return {
            "counted": self.counted,
            "alone": self.alone,
            "score_diff": round(self.score_diff, 5),
            "corner_diff": round(self.corner_diff, 3),
        }


def agreement(want: Detections, found: Detections, bar: Bar, thresholds: Thresholds) -> Agreement:
    """Pair the detections of one image one to one, best overlap first.

    A detection within the score's tolerance of where its list was cut may stand in one list alone,
    and does not count: the lists are cut at the score threshold, and at their full length.
    """
    floor = bar.score + max(_cut(d, thresholds) for d in (want, found))
    iou = box_iou(want.xyxy, found.xyxy)
    score = np.abs(want.confidence[:, None] - found.confidence)
    fits = (iou >= bar.iou) & (score <= bar.score)
    fits &= want.class_id[:, None] == found.class_id
    rows, columns = np.nonzero(fits)
    free_rows, free_columns = set(range(len(want))), set(range(len(found)))
    pairs = []
    for k in np.argsort(-iou[rows, columns], kind="stable"):
        i, j = int(rows[k]), int(columns[k])
        if i in free_rows and j in free_columns:
            free_rows.discard(i)
            free_columns.discard(j)
            pairs.append((i, j))
    alone = sum(bool(want.confidence[i] > floor) for i in free_rows)
    alone += sum(bool(found.confidence[j] > floor) for j in free_columns)
    counted = int((want.confidence > floor).sum() + (found.confidence > floor).sum())
    corners = [float(np.abs(want.xyxy[i] - found.xyxy[j]).max()) for i, j in pairs]
    return Agreement(
        counted=counted,
        alone=alone,
        score_diff=max((float(score[p]) for p in pairs), default=0.0),
        corner_diff=max(corners, default=0.0),
    )


def compared(
    want: Sequence[Detections],
    found: Sequence[Detections],
    precision: Precision,
    thresholds: Thresholds,
    *,
    slack: float = 0.0,
) -> tuple[Figures, list[str]]:
    """Figures of whole images, and what is over the limit in them."""
    bar = BARS[precision]
    pairs = zip(want, found, strict=True)
    whole = sum((agreement(a, b, bar, thresholds) for a, b in pairs), Agreement())
    least = bar.share - slack
    faults = []
    if not whole.counted:
        faults = ["there is nothing to compare: no detection is above the floor"]
    elif whole.share < least:
        faults = [f"{whole.share:.4f} of the detections have a partner, at least {least:g} shall"]
    return whole.figures(), faults


def same(a: Detections, b: Detections) -> bool:
    """Whether two results are equal to the last bit."""
    pairs = ((a.xyxy, b.xyxy), (a.confidence, b.confidence), (a.class_id, b.class_id))
    return all(np.array_equal(x, y) for x, y in pairs)


def judged(figures: Figures, faults: Sequence[str]) -> Figures:
    """The figures, if there is no fault.

    Raises:
        Incomplete: there is one.
    """
    if faults:
        raise Incomplete({**figures, FAULTS: list(faults)})
    return figures


def _cut(found: Detections, thresholds: Thresholds) -> float:
    """The score below which detections may be missing."""
    full = len(found) >= thresholds.detections_per_img
    return float(found.confidence.min()) if full and len(found) else thresholds.score_thresh
