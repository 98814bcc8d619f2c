"""NMS as a TensorRT plugin of retinart's own, in place of the file's own NMS.

The file is cut at its candidates, which are already decoded and selected per level. One launch of
the kernel `engine/tensorrt/nms.cu` does the rest. It gives the same detections as the file's NMS.

The plugin is "ahead of time" (AOT), as TensorRT knows it since 10.9: TensorRT puts the kernel into
the plan, as PTX. So a plan needs neither retinart nor a plugin library, and trtexec and Triton run
it. See "Quickly deployable plugins" in the documentation of `tensorrt.plugin`.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import onnx
from numpy import typing as npt
from onnx import helper

from retinart.engine.model.info import CANDIDATES, OUTPUTS, ModelInfo
from retinart.engine.tensorrt.api import TensorRT
from retinart.engine.tensorrt.kernels import ptx_path
from retinart.export.candidates import emit_box_limits, emit_class_ids
from retinart.export.efficient_nms import after_candidates
from retinart.export.graph import FLOAT, GraphBuilder

NAMESPACE, PLUGIN = "retinart", "RetinaNetNMS"
VERSION = "1"  # TensorRT gives it to every such plugin
KERNEL = "retinart_nms"
THREADS = 1024  # of a block, which does one image
_PREFIX = "nms_plugin/"

_FLOATS, _INTS = npt.NDArray[np.float32], npt.NDArray[np.int32]
INPUTS = ("boxes", "scores", "limits")
# Arrays of one value, because TensorRT 10 converts a plain number in a way that NumPy 2.4 refuses.
ATTRIBUTES: dict[str, Any] = {
    "score_threshold": _FLOATS,
    "iou_threshold": _FLOATS,
    "max_pairs": _INTS,
    "max_detections": _INTS,
    "plus_one": _INTS,
}


def with_nms_plugin(model: onnx.ModelProto, info: ModelInfo) -> onnx.ModelProto:
    """A copy of an exported model with the plugin's node after the candidates.

    Inputs and outputs keep their names, types and values.
    """
    graph = GraphBuilder()
    graph.scope = _PREFIX
    # in FP32 for any precision of the network: boxes in FP16 are coarse above 1024 pixels
    boxes, scores = (graph.op("Cast", name, to=FLOAT) for name in CANDIDATES)
    if info.variant.clip_before_nms:
        limits = graph.const([0] * 4, np.float32)  # the kernel then clips nothing
    else:
        limits = emit_box_limits(graph, info)
    found = [f"{_PREFIX}{name}" for name in OUTPUTS]
    attributes: dict[str, Any] = {"plugin_version": VERSION, "plugin_namespace": NAMESPACE}
    attributes |= plugin_attributes(info)
    node = helper.make_node(
        PLUGIN,
        [boxes, scores, limits],
        found,
        name=f"{_PREFIX}plugin",
        domain=NAMESPACE,
        **attributes,
    )
    graph.nodes.append(node)
    found[3] = emit_class_ids(graph, info, found[3])
    for value, name in zip(found, OUTPUTS, strict=True):
        graph.rename(value, name)
    return after_candidates(model, graph, NAMESPACE)


def plugin_attributes(info: ModelInfo) -> dict[str, float | int]:
    """The plugin's attributes, by name as in `ATTRIBUTES`."""
    thresholds = info.thresholds
    return {
        "score_threshold": thresholds.score_thresh,
        "iou_threshold": thresholds.nms_thresh,
        "max_pairs": thresholds.nms_candidates,
        "max_detections": thresholds.detections_per_img,
        "plus_one": int(info.variant.box_plus_one),
    }


def scalars(candidates: Any, classes: Any, attributes: dict[str, Any]) -> list[Any]:
    """The kernel's whole numbers in its order. They stand between its inputs and its outputs.

    Args:
        candidates, classes: sizes of the scores (N, candidates, classes); numbers or expressions.
        attributes: the plugin's.
    """
    return [
        candidates,
        classes,
        int(attributes["max_pairs"]),
        int(attributes["max_detections"]),
        _bits(attributes["score_threshold"]),
        _bits(attributes["iou_threshold"]),
        int(attributes["plus_one"]),
    ]


def has_aot_plugins(trt: TensorRT) -> bool:
    """Whether this TensorRT puts a plugin's PTX into the plan, as it does since 10.9."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "PREFER_AOT_PYTHON_PLUGINS")


def register(trt: TensorRT) -> None:
    """Make the plugin known to TensorRT, once in a process."""
    plugins: Any = importlib.import_module("tensorrt.plugin")
    if hasattr(plugins.op, NAMESPACE):
        return
    given = (*INPUTS, *ATTRIBUTES)

    def describe(
        boxes: Any, scores: Any, limits: Any, score_threshold: Any, iou_threshold: Any,
        max_pairs: Any, max_detections: Any, plus_one: Any,
    ) -> Any:  # fmt: skip
        images, most = boxes.shape_expr[0], int(max_detections[0])
        whole, real = trt.DataType.INT32, trt.DataType.FLOAT
        shapes = ((images, 1), (images, most, 4), (images, most), (images, most))
        kinds = (whole, real, real, whole)
        return tuple(map(plugins.from_shape_expr, shapes, kinds))

    def launch(
        boxes: Any, scores: Any, limits: Any, score_threshold: Any, iou_threshold: Any,
        max_pairs: Any, max_detections: Any, plus_one: Any, outputs: Any, tactic: Any,
    ) -> Any:  # fmt: skip
        values = (score_threshold, iou_threshold, max_pairs, max_detections, plus_one)
        attributes = {name: value[0] for name, value in zip(ATTRIBUTES, values, strict=True)}
        numbers = scalars(boxes.shape_expr[1], scores.shape_expr[2], attributes)
        arguments = plugins.SymIntExprs(len(numbers))
        for i, number in enumerate(numbers):
            arguments[i] = plugins.SymInt32(number)
        size = plugins.KernelLaunchParams(grid_x=boxes.shape_expr[0], block_x=THREADS)
        return KERNEL, ptx_path("nms").read_text(encoding="ascii"), size, arguments

    # TensorRT reads the arguments' and the results' kinds from the annotations.
    tensor = plugins.TensorDesc
    describe.__annotations__ = dict.fromkeys(INPUTS, tensor) | ATTRIBUTES
    describe.__annotations__["return"] = tuple[(tensor,) * len(OUTPUTS)]  # type: ignore[misc]
    launch.__annotations__ = {k: describe.__annotations__[k] for k in given} | {
        "return": tuple[str, str, plugins.KernelLaunchParams, plugins.SymIntExprs]
    }
    name = f"{NAMESPACE}::{PLUGIN}"
    plugins.register(name)(describe)
    plugins.aot_impl(name)(launch)


def _bits(value: float) -> int:
    """The bits of a float32 as an int32. Adding zero makes -0 to 0."""
    return int((np.float32(value) + np.float32(0)).view(np.int32))
