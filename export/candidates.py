"""From raw head outputs to candidate boxes and scores, as ONNX nodes in float32.

    N  images      A  anchors at a position      K  classes      Hi, Wi  grid of a level
    k  anchors that a level passes on      C  the anchors of all levels together

Each level passes on the k anchors with the highest class logit. These hold the level's best k
(anchor, class) pairs: at most k anchors hold such a pair, and the maximum of each of them is at
least as high as the pair. So the sigmoid, the decoding and the gathering of logits touch k anchors
instead of all. NMS then takes the best `nms_candidates` pairs of all levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retinart.engine.model.info import CANDIDATES, NORMALIZED, ModelInfo
from retinart.engine.model.levels import LEVEL_STRIDES, grid_sizes
from retinart.engine.model.variant import Variant
from retinart.export.graph import FLOAT, GraphBuilder
from retinart.train.model.anchors import base_anchors, level_strides


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """A level's geometry as names of int64 scalars, constant or computed from the input's shape."""

    width: str
    stride: str  # (4,) float32: sx, sy, sx, sy
    k: int
    count: str  # A * Hi * Wi where k may exceed it, or ""


def emit_candidates(
    graph: GraphBuilder,
    variant: Variant,
    *,
    logits: list[str],
    deltas: list[str],
    min_size: tuple[int, int],
    max_size: tuple[int, int],
    topk: int,
) -> tuple[str, str]:
    """Add selection, anchors, decoding and clipping.

    Args:
        logits: P3 to P7, (N, A * K, Hi, Wi) each.
        deltas: P3 to P7, (N, A * 4, Hi, Wi) each.
        min_size, max_size: (height, width) limits of the input.
        topk: most anchors that a level passes on.

    Returns:
        Names of the boxes (N, C, 4) xyxy in pixels of the input and the scores (N, C, K) in 0 to 1.
    """
    graph.scope = "candidates/"
    size = input_limits(graph, min_size if min_size == max_size else None)
    if min_size == max_size:
        grids = _fixed_grids(graph, variant, min_size, topk)
    else:
        grids = _dynamic_grids(graph, variant, size, logits, min_size, max_size, topk)
    levels = []
    for i, grid in enumerate(grids):
        graph.scope = f"candidates/p{i + 3}/"
        levels.append(_level(graph, variant, i, grid, logits[i], deltas[i]))
    graph.scope = "candidates/"
    all_logits, all_deltas, all_anchors = (
        graph.op("Concat", *(level[i] for level in levels), axis=1, name=f"candidates/{name}")
        for i, name in enumerate(("logits", "deltas", "anchors"))
    )
    boxes = _decode(graph, variant, all_deltas, all_anchors)
    if variant.clip_before_nms:
        limits = last_corner(graph, variant, size)
        boxes = graph.op("Max", graph.op("Min", boxes, limits), graph.scalar(0), name="clip")
    scores = graph.op("Sigmoid", all_logits)
    return graph.rename(boxes, CANDIDATES[0]), graph.rename(scores, CANDIDATES[1])


def emit_box_limits(graph: GraphBuilder, info: ModelInfo) -> str:
    """The (4,) float32 value that boxes are clipped to after NMS: the largest x, y, x, y."""
    return last_corner(graph, info.variant, input_limits(graph, info.resize.canvas))


def emit_class_ids(graph: GraphBuilder, info: ModelInfo, channels: str) -> str:
    """The classes of channels (N, M) int32; see `ModelInfo.class_ids`."""
    if not info.dropped_classes:
        return channels
    return graph.op("Gather", graph.const(info.class_ids, np.int32, "class_ids"), channels)


def last_corner(graph: GraphBuilder, variant: Variant, size: str) -> str:
    """The largest corner of a box in an input of W, H, W, H: inclusive corners end one earlier."""
    return graph.op("Sub", size, graph.scalar(1)) if variant.box_plus_one else size


def input_limits(graph: GraphBuilder, size: tuple[int, int] | None) -> str:
    """The (4,) float32 value W, H, W, H of the input, constant when its size is given.

    Else the graph reads it from the normalised image. TensorRT wants a Cast before any other reader
    of a uint8 input (NvInferRuntimeBase.h, DataType::kUINT8).
    """
    if size is not None:
        return graph.const([size[1], size[0]] * 2, np.float32)
    shape = graph.op("Shape", NORMALIZED)  # (N, 3, H, W)
    limits = graph.op("Gather", shape, graph.ints(3, 2, 3, 2))
    return graph.op("Cast", limits, to=FLOAT)


def _fixed_grids(
    graph: GraphBuilder, variant: Variant, size: tuple[int, int], topk: int
) -> list[_Grid]:
    sizes = grid_sizes(*size)
    return [
        _Grid(
            width=graph.const(w, np.int64),
            stride=graph.const([sx, sy, sx, sy], np.float32),
            k=min(topk, variant.num_anchors * h * w),
            count="",
        )
        for (h, w), (sy, sx) in zip(
            sizes, level_strides(size, sizes, variant.anchor_strides), strict=True
        )
    ]


def _dynamic_grids(
    graph: GraphBuilder,
    variant: Variant,
    size: str,
    logits: list[str],
    min_size: tuple[int, int],
    max_size: tuple[int, int],
    topk: int,
) -> list[_Grid]:
    grids = []
    for level, (low, high) in enumerate(
        zip(grid_sizes(*min_size), grid_sizes(*max_size), strict=True)
    ):
        graph.scope = f"candidates/p{level + 3}/"
        shape = graph.op("Shape", logits[level])
        height, width = (graph.op("Gather", shape, graph.const(i, np.int64)) for i in (2, 3))
        if variant.anchor_strides == "fixed":
            stride = graph.const([LEVEL_STRIDES[level]] * 4, np.float32)
        else:  # image // grid: float32 holds these quotients exactly
            grid = graph.op("Cast", graph.op("Gather", shape, graph.ints(3, 2, 3, 2)), to=FLOAT)
            stride = graph.op("Floor", graph.op("Div", size, grid))
        a = variant.num_anchors
        k = min(topk, a * high[0] * high[1])
        count = ""
        if k > a * low[0] * low[1]:
            area = graph.op("Mul", height, width)
            count = graph.op("Mul", area, graph.const(a, np.int64))
        grids.append(_Grid(width=width, stride=stride, k=k, count=count))
    return grids


def _level(
    graph: GraphBuilder, variant: Variant, level: int, grid: _Grid, logits: str, deltas: str
) -> tuple[str, str, str]:
    """Logits (N, k, K), deltas (N, k, 4) and anchors (N, k, 4) of the best k anchors of a level."""
    logits = _rows(graph, logits, variant.num_classes)
    best = graph.op("ReduceMax", logits, graph.ints(2), keepdims=0)  # (N, Hi * Wi * A)
    if grid.count:  # so that k never exceeds the axis for any input size
        best = graph.op("Pad", best, graph.ints(0, 0, 0, grid.k), graph.scalar(-1e9))
    _, index = graph.ops("TopK", best, graph.ints(grid.k), outputs=2, axis=1)  # (N, k)
    real = ""
    if grid.count:
        real = graph.op("Less", index, grid.count)
        last = graph.op("Sub", grid.count, graph.const(1, np.int64))
        index = graph.op("Min", index, last)
    picked, picked_deltas = (
        graph.op("GatherND", rows, graph.op("Unsqueeze", index, graph.ints(2)), batch_dims=1)
        for rows in (logits, _rows(graph, deltas, 4))
    )
    if real:
        real = graph.op("Unsqueeze", real, graph.ints(2))
        picked = graph.op("Where", real, picked, graph.scalar(-1e9))
    return picked, picked_deltas, _anchors(graph, variant, level, grid, index)


def _rows(graph: GraphBuilder, values: str, last: int) -> str:
    """A map (N, A * last, Hi, Wi) as rows (N, Hi * Wi * A, last), ordered (y, x, anchor).

    The transposition costs nothing in runtimes that keep maps channels-last, as OpenVINO does.
    """
    return graph.reshape(graph.op("Transpose", values, perm=[0, 2, 3, 1]), 0, -1, last)


def _anchors(graph: GraphBuilder, variant: Variant, level: int, grid: _Grid, index: str) -> str:
    """Anchors (N, k, 4) of row numbers (N, k), computed rather than looked up in a table."""
    count = graph.const(variant.num_anchors, np.int64)
    position, shape = _divmod(graph, index, count)
    y, x = (graph.op("Unsqueeze", v, graph.ints(2)) for v in _divmod(graph, position, grid.width))
    center = graph.op("Cast", graph.op("Concat", x, y, x, y, axis=2), to=FLOAT)  # (N, k, 4)
    if variant.anchor_center:
        center = graph.op("Add", center, graph.scalar(variant.anchor_center))
    base = base_anchors(
        variant.anchor_sizes[level],
        variant.anchor_ratios,
        order=variant.anchor_order,
        rounding=variant.anchor_rounding,
    )
    table = graph.const(base, np.float32, f"anchors/p{level + 3}")
    center = graph.op("Mul", center, grid.stride)
    return graph.op("Add", center, graph.op("Gather", table, shape))


def _divmod(graph: GraphBuilder, value: str, divisor: str) -> tuple[str, str]:
    """Quotient and remainder of non-negative int64 values."""
    quotient = graph.op("Div", value, divisor)
    return quotient, graph.op("Sub", value, graph.op("Mul", quotient, divisor))


def _decode(graph: GraphBuilder, variant: Variant, deltas: str, anchors: str) -> str:
    """Boxes (N, C, 4) xyxy; the same arithmetic as `retinart.train.model.boxes.decode`."""
    low, high = _halves(graph, anchors)
    size = graph.op("Sub", high, low)
    if variant.box_plus_one:
        size = graph.op("Add", size, graph.scalar(1))
    center = graph.op("Add", low, graph.op("Mul", size, graph.scalar(0.5)))
    shift, log_size = _halves(graph, deltas)
    if variant.box_clamp is not None:
        log_size = graph.op("Min", log_size, graph.scalar(variant.box_clamp))
        if variant.box_clamp_below:
            log_size = graph.op("Max", log_size, graph.scalar(-variant.box_clamp))
    center = graph.op("Add", center, graph.op("Mul", shift, size))
    half = graph.op("Mul", graph.op("Mul", graph.op("Exp", log_size), size), graph.scalar(0.5))
    high = graph.op("Add", center, half)
    if variant.box_plus_one:
        high = graph.op("Sub", high, graph.scalar(1))
    return graph.op("Concat", graph.op("Sub", center, half), high, axis=2)


def _halves(graph: GraphBuilder, value: str) -> tuple[str, str]:
    """Columns 0:2 and 2:4 of a (N, C, 4) value."""
    low, high = (
        graph.op("Slice", value, graph.ints(i), graph.ints(i + 2), graph.ints(2)) for i in (0, 2)
    )
    return low, high
