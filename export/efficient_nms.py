"""The TensorRT plugin EfficientNMS_TRT in place of the file's own NMS.

The file is cut at its candidates, which are already decoded and selected per level. The plugin does
the rest in one kernel. Its README and source say how (plugin/efficientNMSPlugin in
github.com/NVIDIA/TensorRT). It differs from a RetinaNet's NMS in these points:

- It compares with ">=" where RetinaNets compare with ">". So each threshold goes in as the next
  larger float32.
- It computes areas without "+1". For a model that computes them with it, far corners go in one
  larger and come out one smaller.
- Below a threshold of 0.007 it also counts pairs that do not pass, as detections of score -32768.
  There the count is taken from the scores.
- It takes the best 5000 pairs (2000 on GPUs with few registers), where the file takes
  `nms_candidates`, 5000 by default. This difference stays: where another number is exported and
  more pairs pass the threshold, the two may give other detections.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from retinart.engine.model.info import CANDIDATES, OUTPUTS, ModelInfo
from retinart.engine.model.onnx_file import with_graph
from retinart.engine.tensorrt.api import TensorRT, problems_log
from retinart.export.candidates import emit_box_limits, emit_class_ids
from retinart.export.graph import FLOAT, INT32, GraphBuilder

PLUGIN = "EfficientNMS_TRT"
PLUGIN_VERSION = "1"
_DOMAIN = "TRT"  # any will do: TensorRT's parser looks at the name alone
_PREFIX = "efficient_nms/"
_DENSE = 0.007  # below this threshold the plugin sorts all pairs, and counts all of them


def with_plugin(model: onnx.ModelProto, info: ModelInfo) -> onnx.ModelProto:
    """A copy of an exported model with the plugin's node after the candidates.

    Inputs and outputs keep their names and types. Only the first `num_detections` rows of the
    outputs have a meaning.
    """
    graph = GraphBuilder()
    graph.scope = _PREFIX
    # in FP32 for any precision of the network: boxes in FP16 are coarse above 1024 pixels
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
        limits = emit_box_limits(graph, info)
        found[1] = graph.op("Max", graph.op("Min", found[1], limits), graph.scalar(0))
    found[3] = emit_class_ids(graph, info, found[3])
    for value, name in zip(found, OUTPUTS, strict=True):
        graph.rename(value, name)

    return after_candidates(model, graph, _DOMAIN)


def after_candidates(model: onnx.ModelProto, graph: GraphBuilder, domain: str) -> onnx.ModelProto:
    """A copy of a model, with the nodes of `graph` in place of all nodes after the candidates.

    Args:
        domain: of the plugin's node in `graph`.
    """
    nodes = [*_ancestors(model.graph.node, set(CANDIDATES)), *graph.nodes]
    result = with_graph(model, nodes, [*model.graph.initializer, *graph.initializers])
    result.opset_import.append(helper.make_opsetid(domain, 1))
    return result


def has_plugin(trt: TensorRT) -> bool:
    """Whether this TensorRT has the plugin."""
    trt.init_libnvinfer_plugins(problems_log(trt), "")
    registry = trt.get_plugin_registry()
    return registry is not None and registry.get_creator(PLUGIN, PLUGIN_VERSION, "") is not None


def _count(graph: GraphBuilder, scores: str, info: ModelInfo) -> str:
    """How many of the rows (N, M) are above the threshold, as (N, 1) int32."""
    least = graph.scalar(above(info.thresholds.score_thresh))
    is_one = graph.op("Cast", graph.op("GreaterOrEqual", scores, least), to=INT32)
    return graph.op("ReduceSum", is_one, graph.ints(1), keepdims=1)


def plugin_attributes(info: ModelInfo) -> dict[str, float | int]:
    """The plugin's attributes: scores are in 0 to 1, boxes are corners, no class is background."""
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
    """The t for which "x >= t" equals "x > threshold" for every float32 x."""
    return float(np.nextafter(np.float32(threshold), np.float32(np.inf)))


def _ancestors(nodes: Iterable[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that compute these values, in the graph's order."""
    needed, kept = set(wanted), []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]
