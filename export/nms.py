"""Class-wise greedy NMS as ONNX nodes: no plugin, static shapes, the same graph for every runtime.

    N  images      C  candidate anchors      K  classes      P  pairs that enter      M  detections

Greedy NMS goes through the pairs by falling score, and keeps a pair unless one that it has kept
suppresses it. `retinart.engine.runtime.nms` says when a pair suppresses another, to the last bit.

The graph takes the pairs in blocks of BLOCK (B), best first. A pair is alive until a kept one
suppresses it. For each block:

1. `suppress` (B, P) says which pairs the block's pairs would suppress.
2. Inside of the block, keep = alive and not (keep . suppress) is repeated until nothing changes. It
   has one solution, the one of greedy NMS, and each step settles at least one more pair of the
   block (Zheng et al. 2020, Cluster-NMS). So at most B steps are needed, and a loop of the graph
   takes as many as there have to be.
3. What the block keeps is applied to all worse pairs.

Another loop goes over the blocks. It ends when no pair above the score threshold is left, or when
every image has M detections. So NMS is exact for each picture, and its time follows the number of
pairs: few pairs, few blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retinart.engine.model.info import OUTPUTS, Thresholds
from retinart.export.best_pairs import emit_best_pairs, emit_largest
from retinart.export.graph import BOOL, FLOAT, INT32, GraphBuilder

BLOCK = 64  # B


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
    classes_of: Callable[[str], str] = lambda channels: channels,
) -> None:
    """Add NMS and the four outputs of the EfficientNMS convention.

    Args:
        boxes: (N, C, 4) float32 xyxy.
        scores: (N, C, K) float32 in 0 to 1.
        num_classes, num_candidates: K and C.
        thresholds: to build in.
        plus_one: areas count inclusive pixels.
        clip_to: a (4,) value, the largest x, y, x, y that boxes are clipped to afterwards, or "".
        classes_of: adds what makes classes of channels (N, M).
    """
    graph.scope = "nms/"
    pairs = min(thresholds.nms_candidates, num_candidates * num_classes)
    limit = min(thresholds.detections_per_img, pairs)
    score, index = emit_best_pairs(graph, scores, pairs, thresholds.score_thresh)  # (N, P)
    classes = graph.const(num_classes, np.int32)
    row = graph.op("Div", index, classes)
    class_id = graph.op("Sub", index, graph.op("Mul", row, classes))
    box = _rows(graph, boxes, row)  # (N, P, 4)
    nms = _BlockwiseNMS(graph, box, class_id, pairs, thresholds.nms_thresh, plus_one)
    keep = nms.emit(graph.op("Greater", score, graph.scalar(0)), limit)  # (N, P)

    # the first M kept pairs, which have the highest keys; all keys differ
    rank = graph.const(np.arange(pairs, 0, -1), np.int32)
    rank = graph.op("Mul", _int32(graph, keep), rank)
    order = emit_largest(graph, rank, limit, np.int32)
    mask = graph.op("GatherElements", keep, order, axis=1)  # (N, M)
    best = graph.op("Mul", graph.op("GatherElements", score, order, axis=1), mask)
    found = graph.op("Unsqueeze", graph.op("Cast", mask, to=BOOL), graph.ints(2))
    box = graph.op("Where", found, _rows(graph, box, order), graph.scalar(0))
    if clip_to:
        box = graph.op("Max", graph.op("Min", box, clip_to), graph.scalar(0))
    label = graph.op("GatherElements", class_id, order, axis=1)
    label = graph.op("Mul", label, _int32(graph, mask))
    count = graph.op("ReduceSum", mask, graph.ints(1), keepdims=1)
    values = [_int32(graph, count), box, best, label]
    missing = thresholds.detections_per_img - limit
    for name, value in zip(OUTPUTS, values, strict=True):
        if missing and name != OUTPUTS[0]:  # fewer pairs than detections: fill up with zeros
            pads = [0, 0, 0, missing] if name != OUTPUTS[1] else [0, 0, 0, 0, missing, 0]
            value = graph.op("Pad", value, graph.ints(*pads))
        value = classes_of(value) if name == OUTPUTS[3] else value
        graph.rename(value, name)


class _BlockwiseNMS:
    """NMS of pairs that are sorted by falling score.

    Args:
        box: (N, P, 4) float32 xyxy.
        class_id: (N, P) int32.
        pairs: P.
        nms_thresh, plus_one: see `emit_nms`.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        box: str,
        class_id: str,
        pairs: int,
        nms_thresh: float,
        plus_one: bool,
    ) -> None:
        self._graph, self._box, self._class_id, self._pairs = graph, box, class_id, pairs
        self._block = min(BLOCK, pairs)
        self._thresh, self._plus_one = graph.scalar(nms_thresh), plus_one
        self._order = graph.const(np.arange(pairs), np.int64)
        corners = self._corners(box)
        self._area = graph.op("Transpose", self._area_of(corners), perm=[0, 2, 1])  # (N, 1, P)
        self._columns = [graph.op("Transpose", c, perm=[0, 2, 1]) for c in corners]
        self._labels = graph.op("Unsqueeze", class_id, graph.ints(1))

    def emit(self, valid: str, limit: int) -> str:
        """(N, P) float32: 1 for each pair that is kept.

        Args:
            valid: (N, P) bool, whether a pair is above the score threshold; true ones come first.
            limit: pairs of an image that suffice; worse ones may stay without being looked at.
        """
        graph = self._graph
        alive = _float(graph, valid)
        counts = graph.op("ReduceSum", alive, graph.ints(1), keepdims=0)
        most = graph.op("ReduceMax", counts, graph.ints(0), keepdims=0)  # that any image has
        blocks = graph.const(-(-self._pairs // self._block), np.int64)

        def block(number: str, alive: str) -> tuple[str, str]:
            alive = self._block_step(number, alive)
            end = graph.op("Add", number, graph.const(1, np.int64))
            end = graph.op("Mul", end, graph.const(self._block, np.int64))
            done = graph.op("Mul", alive, _float(graph, graph.op("Less", self._order, end)))
            counts = graph.op("ReduceSum", done, graph.ints(1, 2), keepdims=0)
            least = graph.op("ReduceMin", counts, graph.ints(0), keepdims=0)
            few = graph.op("Less", least, graph.scalar(limit))
            more = graph.op("Less", _float(graph, end), most)
            return graph.op("And", few, more), alive

        start = graph.const(True, np.bool_)
        alive = graph.op("Unsqueeze", alive, graph.ints(1))  # (N, 1, P)
        shape = ("images", 1, self._pairs)
        alive = graph.loop(blocks, start, alive, block, shape=shape, name="nms/blocks")
        return graph.op("Squeeze", alive, graph.ints(1))

    def _block_step(self, number: str, alive: str) -> str:
        """`alive` (N, 1, P) after a block has suppressed what it suppresses."""
        graph = self._graph
        place = graph.op("Mul", number, graph.const(self._block, np.int64))
        place = graph.op("Add", place, graph.const(np.arange(self._block), np.int64))
        # the last block may reach beyond the end: it then holds the last pair several times
        place = graph.op("Min", place, graph.const(self._pairs - 1, np.int64))  # (B,)
        suppress = self._suppress(place)  # (N, B, P)
        inside = graph.op("Gather", suppress, place, axis=2)  # (N, B, B)
        before = graph.op("Gather", alive, place, axis=2)  # (N, 1, B)

        def settle(_: str, keep: str) -> tuple[str, str]:
            after = graph.op("Mul", before, self._not_hit(keep, inside))
            change = graph.op("Abs", graph.op("Sub", after, keep))
            change = graph.op("ReduceMax", change, graph.ints(0, 1, 2), keepdims=0)
            return graph.op("Greater", change, graph.scalar(0.5)), after

        keep = graph.loop(
            graph.const(self._block, np.int64),
            graph.const(True, np.bool_),
            before,
            settle,
            shape=("images", 1, self._block),
            name="nms/settle",
        )
        return graph.op("Mul", alive, self._not_hit(keep, suppress))

    def _not_hit(self, keep: str, suppress: str) -> str:
        """(N, 1, Q) float32: 1 where none of `keep` (N, 1, B) suppresses, by (N, B, Q)."""
        hits = self._graph.op("MatMul", keep, suppress)
        return _float(self._graph, self._graph.op("Less", hits, self._graph.scalar(0.5)))

    def _suppress(self, place: str) -> str:
        """(N, B, P) float32: 1 where the pair at a place (B,) would suppress a worse one."""
        graph = self._graph
        corners = self._corners(graph.op("Gather", self._box, place, axis=1))  # each (N, B, 1)
        inter = graph.op("Mul", self._overlap(corners, 0), self._overlap(corners, 1))
        union = graph.op("Sub", graph.op("Add", self._area_of(corners), self._area), inter)
        above = graph.op("Less", graph.op("Mul", union, self._thresh), inter)  # false for NaN
        labels = graph.op("Gather", self._class_id, place, axis=1)
        same = graph.op("Equal", graph.op("Unsqueeze", labels, graph.ints(2)), self._labels)
        worse = graph.op("Less", graph.op("Unsqueeze", place, graph.ints(1)), self._order)
        return _float(graph, graph.op("And", graph.op("And", above, same), worse))

    def _corners(self, box: str) -> list[str]:
        """x1, y1, x2 and y2 of boxes (N, Q, 4), each (N, Q, 1)."""
        graph = self._graph
        return [
            graph.op("Slice", box, graph.ints(i), graph.ints(i + 1), graph.ints(2))
            for i in range(4)
        ]

    def _length(self, low: str, high: str) -> str:
        value = self._graph.op("Sub", high, low)
        return self._graph.op("Add", value, self._graph.scalar(1)) if self._plus_one else value

    def _overlap(self, corners: Sequence[str], axis: int) -> str:
        """(N, B, P): how far the block's boxes and all pairs' boxes overlap on an axis."""
        graph = self._graph
        low = graph.op("Max", corners[axis], self._columns[axis])
        high = graph.op("Min", corners[axis + 2], self._columns[axis + 2])
        return graph.op("Max", self._length(low, high), graph.scalar(0))

    def _area_of(self, corners: Sequence[str]) -> str:
        x1, y1, x2, y2 = corners
        return self._graph.op("Mul", self._length(x1, x2), self._length(y1, y2))


def _rows(graph: GraphBuilder, boxes: str, index: str) -> str:
    """Boxes (N, P, 4) of the indices (N, P)."""
    wide = graph.op("Unsqueeze", index, graph.ints(2))
    wide = graph.op("Concat", wide, wide, wide, wide, axis=2)
    return graph.op("GatherElements", boxes, wide, axis=1)


def _float(graph: GraphBuilder, value: str) -> str:
    return graph.op("Cast", value, to=FLOAT)


def _int32(graph: GraphBuilder, value: str) -> str:
    return graph.op("Cast", value, to=INT32)
