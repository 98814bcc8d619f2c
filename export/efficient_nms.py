"""The TensorRT plugin EfficientNMS_TRT in the place of the file's own NMS.

The file is cut at its candidates, which are decoded, clamped and cut down per level already, and
the plugin does the rest in one kernel. It compares with ">=" where RetinaNets compare with ">", so
each threshold goes in as the next larger float32; and it counts areas without "+1", so that where a
model counts them with it, far corners go in one larger and come out one smaller. What the plugin
does stands in its README and source (plugin/efficientNMSPlugin in github.com/NVIDIA/TensorRT).

Below a threshold of 0.007 the plugin also counts, as detections of score -32768, what does not pass
it, so there the count is taken from the scores.

One difference is left: the plugin takes the best 5000 pairs, on GPUs of few registers 2000, where
the file takes `nms_candidates` (2000), so it may add detections where more pass the threshold and
NMS leaves fewer than it may.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from retinart.engine.model.info import CANDIDATES, INPUT, OUTPUTS, ModelInfo
from retinart.engine.model.onnx_file import with_graph
from retinart.export.candidates import input_limits
from retinart.export.graph import FLOAT, INT32, GraphBuilder

PLUGIN = "EfficientNMS_TRT"
PLUGIN_VERSION = "1"
_DOMAIN = "TRT"  # any: TensorRT's parser looks at the name
_PREFIX = "efficient_nms/"
_DENSE = 0.007  # below this threshold the plugin sorts all pairs, and counts those below it too


def with_plugin(model: onnx.ModelProto, info: ModelInfo) -> onnx.ModelProto:
    """A copy of an exported model with the plugin's node after the candidates.

    Its inputs and outputs keep their names and types; of the outputs only the first
    `num_detections` rows mean anything.
    """
    graph = GraphBuilder()
    graph.scope = _PREFIX
    # whatever the network's precision is: boxes in FP16 are coarse above 1024 pixels
    boxes, scores = (graph.op("Cast", name, to=FLOAT) for name in CANDIDATES)
    if info.variant.box_plus_one:
        far = graph.const([0, 0, 1, 1], np.float32)
        boxes = graph.op("Add", boxes, far)
    found = [f"{_PREFIX}{name}" for name in OUTPUTS]
    plugin = helper.make_node(
        PLUGIN,
        [boxes, scores],
        found,
        name=f"{_PREFIX}plugin",
        domain=_DOMAIN,
    )
    attributes: dict[str, Any] = {"plugin_version": PLUGIN_VERSION, "plugin_namespace": ""}
    attributes |= plugin_attributes(info)
    plugin.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    graph.nodes.append(plugin)
    if plugin_attributes(info)["score_threshold"] < _DENSE:
        found[0] = _count(graph, found[2], info)
    if info.variant.box_plus_one:
        found[1] = graph.op("Sub", found[1], far)
    if not info.variant.clip_before_nms:
        limits = input_limits(graph, INPUT, info.resize.canvas)
        found[1] = graph.op("Max", graph.op("Min", found[1], limits), graph.scalar(0))
    for value, name in zip(found, OUTPUTS, strict=True):
        graph.rename(value, name)

    nodes = [*_ancestors(model.graph.node, set(CANDIDATES)), *graph.nodes]
    result = with_graph(model, nodes, [*model.graph.initializer, *graph.initializers])
    result.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return result


def _count(graph: GraphBuilder, scores: str, info: ModelInfo) -> str:
    """How many of the rows (N, M) are above the threshold, as (N, 1) int32."""
    least = graph.scalar(above(info.thresholds.score_thresh))
    is_one = graph.op("Cast", graph.op("GreaterOrEqual", scores, least), to=INT32)
    return graph.op("ReduceSum", is_one, graph.ints(1), keepdims=1)


def plugin_attributes(info: ModelInfo) -> dict[str, float | int]:
    """What the plugin is told: scores are in 0 to 1 already, boxes are corners, no background."""
    return {
        "score_threshold": above(info.thresholds.score_thresh),
        "iou_threshold": above(info.thresholds.nms_thresh),
        "max_output_boxes": info.thresholds.detections_per_img,
        "background_class": -1,
        "score_activation": 0,
        "class_agnostic": 0,
        "box_coding": 0,
    }


def above(threshold: float) -> float:
    """The t for which "x >= t" is what "x > threshold" is, for every float32 x."""
    return float(np.nextafter(np.float32(threshold), np.float32(np.inf)))


def _ancestors(nodes: Iterable[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that these values need, in their order."""
    needed, kept = set(wanted), []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]
