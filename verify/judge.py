"""What counts as right: bars for detections of each precision, and bounds for the rest.

A figure over its limit is a fault, and a fault fails its step: `judged` sees to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from retinart.benchmarks.timing.worker import Incomplete
from retinart.engine.detections import Detections
from retinart.engine.evaluation.matching import Match, Tolerance, match
from retinart.engine.model.info import Precision, Thresholds
from retinart.engine.tensorrt.engine_file import NmsForm

Figures = dict[str, Any]
FAULTS = "over the limit"


class Bar(NamedTuple):
    """How close a pair has to be, and the smallest share of detections with a partner."""

    tolerance: Tolerance
    share: float


# An engine computes what its file says, as ONNX Runtime does. FP32 leaves roundings, FP16 moves
# scores by thousandths, and INT8 by a quantum here and there, which the heads' towers enlarge.
# Between ONNX Runtime and OpenVINO, with files of `tiny` (12 scenes, 8 COCO images), the share was
# 0.978 to 0.994 at INT8's bar, 0.995 and 1 at FP16's, 0.997 and 0.999 at FP32's. In FP32 every
# unmatched detection touched the padding (see SLACK); the others were equal to 1e-5.
_INT8 = Bar(Tolerance(score=0.1, iou=0.9), 0.93)
BARS: dict[Precision, Bar] = {
    "fp32": Bar(Tolerance(score=0.002, iou=0.98), 1.0),
    "fp16": Bar(Tolerance(score=0.02, iou=0.9), 0.97),
    "int8": _INT8,
    "int8+fp16": _INT8,
}
# OpenVINO's runner clips boxes to the image before NMS, and a file's NMS clips to the frame.
SLACK = {"onnxruntime": 0.0, "openvino": 0.02}
# Runs of one engine where equal scores come in any order. `tiny` with logits rounded to FP16, 24
# orders of EfficientNMS's NumPy reference: see test_ties_are_free_where_their_order_is.
TIES = Bar(Tolerance(score=1e-6, iou=0.98), 0.97)
GROWTH = {"host MB": 16, "GPU MB": 8}


def compared(
    want: Sequence[Detections],
    found: Sequence[Detections],
    bar: Bar,
    thresholds: Thresholds,
    *,
    slack: float = 0.0,
) -> tuple[Figures, list[str]]:
    """Figures of the detections in some images, and what is over the limit in them.

    A list is cut at the score threshold, and at its full length. A detection within the score's
    tolerance of the cut may be in one list alone, and does not count.
    """
    whole = Match()
    for a, b in zip(want, found, strict=True):
        floor = max(_cut(detections, thresholds) for detections in (a, b))
        whole += match(a, b, bar.tolerance, floor=floor)
    least, faults = bar.share - slack, list[str]()
    if not whole.counted:
        faults = ["there is nothing to compare: no detection is above the floor"]
    elif whole.share < least:
        faults = [f"{whole.share:.4f} of the detections have a partner, at least {least:g} shall"]
    figures = {
        "counted": whole.counted,
        "alone": whole.missing + whole.extra,
        "score_diff": round(whole.score_diff, 5),
        "corner_diff": round(whole.corner_diff, 3),
    }
    return figures, faults


def same(a: Detections, b: Detections) -> bool:
    """Whether two results are equal to the last bit."""
    pairs = ((a.xyxy, b.xyxy), (a.confidence, b.confidence), (a.class_id, b.class_id))
    return all(np.array_equal(x, y) for x, y in pairs)


def repeated(
    want: Sequence[Detections], found: Sequence[Detections], nms: NmsForm, thresholds: Thresholds
) -> tuple[Figures, list[str]]:
    """Figures of two runs of one engine on the same images, and what is over the limit in them.

    With retinart's plugin they are equal to the last bit. EfficientNMS orders equal scores by
    chance, and TensorRT promises no order of them in TopK. With FP16 equal scores are frequent. The
    order decides which box of a crowd stays, so a small share may have no partner.
    """
    if nms != "plugin":
        return compared(want, found, TIES, thresholds)
    differ = sum(not same(a, b) for a, b in zip(want, found, strict=True))
    faults = [f"{differ} results differ from those without a graph, none shall"] if differ else []
    return {"results": len(found), "differ": differ}, faults


def judged(figures: Figures, faults: Iterable[str]) -> Figures:
    """Return the figures. Where there are faults, raise Incomplete with figures and faults."""
    if faults := list(faults):
        raise Incomplete({**figures, FAULTS: faults})
    return figures


def _cut(found: Detections, thresholds: Thresholds) -> float:
    """The score below which detections may be missing."""
    full = len(found) >= thresholds.detections_per_img
    return float(found.confidence.min()) if full and len(found) else thresholds.score_thresh
