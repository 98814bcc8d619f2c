"""The best (anchor, class) pairs by falling score, and of equal scores the first, as ONNX nodes.

    N  images      A  all pairs of an image      P  the pairs that are taken

ONNX says that TopK puts the lower index first where values are equal. OpenVINO does not do so, and
TensorRT does not promise it. So equal scores are put in order here. Where more than P pairs are
above the threshold and several have the score of the last one, the runtime decides which of these
are taken.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from retinart.engine.model.info import MAX_TOPK
from retinart.export.graph import FLOAT, INT32, GraphBuilder

LOWEST = -(2**31)


def emit_best_pairs(
    graph: GraphBuilder, scores: str, pairs: int, score_thresh: float
) -> tuple[str, str]:
    """Scores (N, P) float32, falling, and indices (N, P) int32 of each image's best pairs.

    Pairs that are not above the score threshold get the score 0 and come last. So do pairs whose
    score is NaN.

    Args:
        scores: (N, C, K) float32 in 0 to 1; a pair's index is anchor * K + class.
        pairs: P.
        score_thresh: what a score must exceed.
    """
    above = graph.op("Less", graph.scalar(score_thresh), scores)  # OpenVINO's NaN is Greater
    flat = graph.reshape(graph.op("Where", above, scores, graph.scalar(0)), 0, -1)  # (N, A)
    order = emit_largest(graph, flat, pairs, np.float32)
    score = graph.op("GatherElements", flat, order, axis=1)
    index = graph.op("Cast", order, to=INT32)
    # the place that a pair would have if pairs were sorted by index
    by_index = emit_largest(graph, graph.op("Neg", index), pairs, np.int32)
    zeros = graph.op("Mul", index, graph.const(0, np.int32))
    places = graph.op("Add", zeros, graph.const(np.arange(pairs), np.int32))
    place = graph.op("ScatterElements", zeros, by_index, places, axis=1)
    # by falling score, and then by that place: no two keys are equal
    key = graph.op("Mul", _changes(graph, score, pairs), graph.const(pairs, np.int32))
    key = graph.op("Neg", graph.op("Add", key, place))
    order = emit_largest(graph, key, pairs, np.int32)
    return score, graph.op("GatherElements", index, order, axis=1)


def emit_largest(graph: GraphBuilder, values: str, count: int, dtype: npt.DTypeLike) -> str:
    """Indices (N, count) int64 of the largest of values (N, any) in falling order.

    They are taken in several goes, because TensorRT's TopK gives at most MAX_TOPK.

    Args:
        dtype: of the values; all are above LOWEST.
    """
    parts = []
    while count:
        some = min(count, MAX_TOPK)
        found, index = graph.ops("TopK", values, graph.ints(some), outputs=2, axis=1)
        parts.append(index)
        count -= some
        if count:
            taken = graph.op("Min", found, graph.const(LOWEST, dtype))
            values = graph.op("ScatterElements", values, index, taken, axis=1)
    return parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=1)


def _changes(graph: GraphBuilder, score: str, pairs: int) -> str:
    """(N, P) int32: how often the scores (N, P), which fall, have changed up to each of them.

    It is a running sum in two matrix products; older versions of TensorRT take P steps for CumSum.
    """
    side = math.isqrt(pairs - 1) + 1
    ahead = graph.op("Slice", score, graph.ints(0), graph.ints(pairs - 1), graph.ints(1))
    ahead = graph.op("Pad", ahead, graph.ints(0, 1, 0, 0), graph.scalar(2))
    change = graph.op("Cast", graph.op("Less", score, ahead), to=FLOAT)
    change = graph.op("Pad", change, graph.ints(0, 0, 0, side * side - pairs))
    change = graph.reshape(change, 0, side, side)
    within = graph.op("MatMul", change, graph.const(np.triu(np.ones((side, side))), np.float32))
    rows = graph.op("ReduceSum", change, graph.ints(2), keepdims=1)  # (N, side, 1)
    above = graph.const(np.tril(np.ones((side, side)), -1), np.float32)
    total = graph.reshape(graph.op("Add", within, graph.op("MatMul", above, rows)), 0, -1)
    total = graph.op("Slice", total, graph.ints(0), graph.ints(pairs), graph.ints(1))
    return graph.op("Cast", total, to=INT32)
