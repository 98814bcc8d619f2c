"""Class-wise greedy NMS in plain matrix operations: no plugin, static shapes, every runtime.

    N  images      C  candidate anchors      K  classes      P  pairs that enter      M  detections

Greedy NMS keeps a candidate unless a better one that is itself kept overlaps it. Sort the
candidates by falling score, and let `suppress[i, j] = 1` if i < j, the class is the same and the
IoU is above the threshold. Then the kept set is the only solution of keep = (keep . suppress == 0).
Iterate that, beginning with all candidates kept: each step settles at least one more rank of the
longest chain of suppressions. After as many steps as the chain is long, what is left is what greedy
NMS keeps (Zheng et al. 2020, Cluster-NMS).
"""

from __future__ import annotations

import numpy as np

from retinart.engine.model.info import OUTPUTS, Thresholds
from retinart.export.graph import FLOAT, INT32, GraphBuilder

# Crowds of 2000 clustered candidates settle in at most 13 steps. Only a chain of more than STEPS
# boxes in falling order of score, each of which overlaps the next one alone, needs more than STEPS.
STEPS = 24


def emit_nms(
    graph: GraphBuilder,
    boxes: str,
    scores: str,
    *,
    num_classes: int,
    num_candidates: int,
    thresholds: Thresholds,
    plus_one: bool,
    clip_to: str = "",
) -> None:
    """Add NMS and the four outputs of the EfficientNMS convention.

    Args:
        boxes: (N, C, 4) float32 xyxy.
        scores: (N, C, K) float32 in 0 to 1.
        num_classes, num_candidates: K and C.
        thresholds: to build in.
        plus_one: areas count inclusive pixels.
        clip_to: a (4,) value W, H, W, H to clip the boxes to afterwards, or "".
    """
    graph.scope = "nms/"
    pairs = min(thresholds.nms_candidates, num_candidates * num_classes)
    flat = graph.reshape(scores, 0, -1)
    score, index = graph.ops("TopK", flat, graph.ints(pairs), outputs=2, axis=1)  # (N, P)
    classes = graph.const(num_classes, np.int64)
    row = graph.op("Div", index, classes)
    class_id = graph.op("Sub", index, graph.op("Mul", row, classes))
    box = _rows(graph, boxes, row)  # (N, P, 4)

    valid = _float(graph, graph.op("Greater", score, graph.scalar(thresholds.score_thresh)))
    suppress = _suppress(graph, box, class_id, pairs, thresholds.nms_thresh, plus_one)
    valid = graph.op("Unsqueeze", valid, graph.ints(1))  # (N, 1, P)
    keep = valid
    for step in range(STEPS):
        hits = graph.op("MatMul", keep, suppress, name=f"nms/step{step}")
        free = _float(graph, graph.op("Less", hits, graph.scalar(0.5)))
        keep = graph.op("Mul", valid, free)
    keep = graph.op("Squeeze", keep, graph.ints(1))  # (N, P)

    limit = min(thresholds.detections_per_img, pairs)
    ranked = graph.op("Mul", score, keep)
    best, order = graph.ops("TopK", ranked, graph.ints(limit), outputs=2, axis=1)  # (N, limit)
    found = graph.op("Greater", best, graph.scalar(0))
    mask = _float(graph, found)
    box = graph.op("Mul", _rows(graph, box, order), graph.op("Unsqueeze", mask, graph.ints(2)))
    if clip_to:
        box = graph.op("Max", graph.op("Min", box, clip_to), graph.scalar(0))
    found = graph.op("Cast", found, to=INT32)
    label = graph.op("Cast", graph.op("GatherElements", class_id, order, axis=1), to=INT32)
    label = graph.op("Mul", label, found)
    count = graph.op("ReduceSum", mask, graph.ints(1), keepdims=1)
    values = [graph.op("Cast", count, to=INT32), box, best, label]
    missing = thresholds.detections_per_img - limit
    for name, value in zip(OUTPUTS, values, strict=True):
        if missing and name != OUTPUTS[0]:  # fewer pairs than detections: fill up with zeros
            pads = [0, 0, 0, missing] if name != OUTPUTS[1] else [0, 0, 0, 0, missing, 0]
            value = graph.op("Pad", value, graph.ints(*pads))
        graph.rename(value, name)


def _suppress(
    graph: GraphBuilder, box: str, class_id: str, pairs: int, nms_thresh: float, plus_one: bool
) -> str:
    """(N, P, P) float32: 1 where row i would suppress column j."""
    corners = [
        graph.op("Slice", box, graph.ints(i), graph.ints(i + 1), graph.ints(2)) for i in range(4)
    ]  # each (N, P, 1)
    x1, y1, x2, y2 = corners
    rows = [graph.op("Transpose", c, perm=[0, 2, 1]) for c in corners]  # (N, 1, P)

    def length(low: str, high: str) -> str:
        value = graph.op("Sub", high, low)
        return graph.op("Add", value, graph.scalar(1)) if plus_one else value

    def overlap(axis: int) -> str:
        low = graph.op("Max", corners[axis], rows[axis])
        high = graph.op("Min", corners[axis + 2], rows[axis + 2])
        return graph.op("Max", length(low, high), graph.scalar(0))

    inter = graph.op("Mul", overlap(0), overlap(1))  # (N, P, P)
    area = graph.op("Mul", length(x1, x2), length(y1, y2))  # (N, P, 1)
    both = graph.op("Add", area, graph.op("Transpose", area, perm=[0, 2, 1]))
    union = graph.op("Sub", both, inter)
    above = graph.op(
        "Greater", inter, graph.op("Mul", union, graph.scalar(nms_thresh)), name="nms/iou_above"
    )
    label = graph.op("Cast", class_id, to=INT32)
    same = graph.op(
        "Equal",
        graph.op("Unsqueeze", label, graph.ints(2)),
        graph.op("Unsqueeze", label, graph.ints(1)),
    )
    order = graph.const(np.arange(pairs), np.int32)
    before = graph.op(
        "Less",
        graph.op("Unsqueeze", order, graph.ints(1)),
        graph.op("Unsqueeze", order, graph.ints(0)),
    )
    both_true = graph.op("And", graph.op("And", above, same), before)
    return _float(graph, both_true)


def _rows(graph: GraphBuilder, boxes: str, index: str) -> str:
    """Boxes (N, P, 4) of the indices (N, P)."""
    wide = graph.op("Unsqueeze", index, graph.ints(2))
    wide = graph.op("Concat", wide, wide, wide, wide, axis=2)
    return graph.op("GatherElements", boxes, wide, axis=1)


def _float(graph: GraphBuilder, value: str) -> str:
    return graph.op("Cast", value, to=FLOAT)
