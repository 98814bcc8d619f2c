"""The whole detector as one ONNX model: frames in, detections out."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import onnx

from retinart.engine.model.info import HEADS, INPUT, NORMALIZED, OUTPUTS, ModelInfo
from retinart.export.candidates import emit_box_limits, emit_candidates, emit_class_ids
from retinart.export.graph import FLOAT, INT32, UINT8, GraphBuilder
from retinart.export.network import emit_network
from retinart.export.nms import emit_nms
from retinart.train.model.retinanet import HeadOutputs, RetinaNet


def build_onnx(model: RetinaNet, info: ModelInfo) -> onnx.ModelProto:
    """The ONNX model of a RetinaNet, checked by `onnx.checker`.

    Args:
        model: in evaluation mode.
        info: input sizes, variant and thresholds to build in.
    """
    variant, thresholds = info.variant, info.thresholds
    graph = GraphBuilder()
    normalized = _normalize(graph, info)
    outputs = emit_network(
        graph, model, normalized, flip_input_channels=variant.channel_order == "rgb"
    )
    assert isinstance(outputs, HeadOutputs)
    names = [
        graph.rename(str(value), name)
        for value, name in zip([*outputs.logits, *outputs.deltas], HEADS, strict=True)
    ]
    boxes, scores = emit_candidates(
        graph,
        variant,
        logits=names[:5],
        deltas=names[5:],
        min_size=info.min_size,
        max_size=info.max_size,
        topk=thresholds.topk_candidates,
    )
    clip_to = ""
    if not variant.clip_before_nms:
        clip_to = emit_box_limits(graph, info)
    emit_nms(
        graph,
        boxes,
        scores,
        num_classes=variant.num_classes,
        num_candidates=sum(info.level_candidates),
        thresholds=thresholds,
        plus_one=variant.box_plus_one,
        clip_to=clip_to,
        classes_of=lambda channels: emit_class_ids(graph, info, channels),
    )
    m = thresholds.detections_per_img
    height, width = info.resize.canvas or ("height", "width")
    result = graph.model(
        inputs=[(INPUT, UINT8, ["batch", height, width, 3])],
        outputs=[
            (OUTPUTS[0], INT32, ["batch", 1]),
            (OUTPUTS[1], FLOAT, ["batch", m, 4]),
            (OUTPUTS[2], FLOAT, ["batch", m]),
            (OUTPUTS[3], INT32, ["batch", m]),
        ],
        name=info.name,
        producer_version=version("retinart"),
    )
    onnx.checker.check_model(result, full_check=True)
    return result


def _normalize(graph: GraphBuilder, info: ModelInfo) -> str:
    """Frames (N, H, W, 3) uint8 to (N, 3, H, W) float32, normalised, still in BGR order."""
    graph.scope = "normalize/"
    x = graph.op("Cast", INPUT, to=FLOAT)
    mean, std = (
        np.array(v).reshape(1, 1, 1, 3) for v in (info.variant.mean_bgr, info.variant.std_bgr)
    )
    x = graph.op("Sub", x, graph.const(mean, np.float32, "normalize/mean"))
    x = graph.op("Mul", x, graph.const(1 / std, np.float32, "normalize/scale"))
    normalized = graph.op("Transpose", x, name=NORMALIZED, perm=[0, 3, 1, 2])
    graph.scope = ""
    return normalized
