"""OpenVINO's own file format (IR), NMS included, for programs that run OpenVINO without retinart.

`Detector` cuts a file at its candidates and does NMS in NumPy. A program in C++ or a model server
cannot, and the file's own NMS, which is written for every runtime, takes as long as a small network
does on a CPU. So here the candidates go into OpenVINO's operator for NMS instead:

    frames -> network -> candidates -> MulticlassNms -> the four outputs of the file

    N  images      C  candidate anchors      K  classes      M  detections of an image

Inputs and outputs keep their names, types and shapes. The operator divides where retinart
multiplies (see `retinart.engine.runtime.nms`), so a box whose IoU equals the threshold up to
rounding can be kept here and dropped there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.files import atomic_pair
from retinart.engine.errors import BadInput
from retinart.engine.model.info import (
    CANDIDATES,
    INPUT,
    METADATA_KEY,
    OUTPUTS,
    ModelInfo,
    Thresholds,
    read_model,
)
from retinart.engine.runtime.native_errors import explained
from retinart.engine.runtime.openvino_api import find_tensors, load_openvino, openvino_core
from retinart.engine.runtime.runner import last_line
from retinart.engine.runtime.saturation import can_saturate
from retinart.engine.runtime.winograd import use_winograd

SUFFIX = ".xml"  # of the graph; the weights lie beside it in .bin
_NOTE = (
    "its INT8 weights have 8 bits, and without retinart OpenVINO computes them wrongly on CPUs "
    "without VNNI; for such a CPU, calibrate with --weight-bits 7"
)


@dataclass(frozen=True, kw_only=True)
class IRReport:
    """An IR that was written.

    Attributes:
        path: the graph's file.
        weights: the weights' file.
        winograd: how many convolutions use Winograd's algorithm.
        note: what must be known where it runs; "" for nothing.
    """

    path: Path
    weights: Path
    winograd: int
    note: str = ""


def write_ir(model: Path, output: Path, *, winograd: bool = False) -> IRReport:
    """Write a model as OpenVINO's IR.

    Args:
        model: an ONNX file of retinart.
        output: the .xml file; the weights go into the .bin file beside it. Both appear when both
            are whole.
        winograd: write 3x3 convolutions with Winograd's algorithm where that is faster on a CPU, as
            `Detector` does. It takes an FP32 file with a fixed size.

    Raises:
        BadInput: the model is not ours, the output has another suffix, or `winograd` does not fit
            the model.
    """
    if output.suffix != SUFFIX:
        raise BadInput(
            f"cannot write {output}",
            why="OpenVINO finds the weights of a .xml file in the .bin file beside it",
            fix=f"Name it {output.with_suffix(SUFFIX)}",
        )
    info, _ = read_model(model)
    if winograd and (info.precision != "fp32" or info.dynamic):
        what = "has dynamic sizes" if info.dynamic else f"is {info.precision}"
        raise BadInput(
            f"`winograd` does not fit {model}",
            why=f"it {what}, and Winograd's algorithm takes FP32 layers of a fixed size",
            fix="Leave `winograd` out",
        )
    weights = output.with_suffix(".bin")
    with explained("OpenVINO", model, "load"):
        graph = build_ir(model, info)
        replaced = use_winograd(graph) if winograd else 0
        note = _NOTE if can_saturate(graph) else ""
    with atomic_pair(weights, output) as (new_weights, new_graph):
        _serialize(graph, new_graph, new_weights, output)
    return IRReport(path=output, weights=weights, winograd=replaced, note=note)


def _serialize(graph: Any, new_graph: Path, new_weights: Path, output: Path) -> None:
    """Write the two files, and see that they are whole: OpenVINO may miss a full disk.

    Raises:
        BadInput: they are not.
    """
    why = ""
    try:
        load_openvino().serialize(graph, str(new_graph), str(new_weights))
    except RuntimeError as error:  # of the stream, without the system's reason
        why = last_line(error)
    text = new_graph.read_bytes()
    places = re.findall(rb'offset="(\d+)" size="(\d+)"', text)
    end = max((int(offset) + int(size) for offset, size in places), default=0)
    if not text.rstrip().endswith(b"</net>") or new_weights.stat().st_size < end:
        why = why or "a part of it is missing"
    if why:
        raise BadInput(
            f"OpenVINO could not write {output} and its weights",
            why=why,
            fix="Make room on its disk, or choose another one",
        )


def build_ir(model: Path, info: ModelInfo) -> Any:
    """The `openvino.Model` of a file of ours, with OpenVINO's NMS and `model_info`."""
    whole = openvino_core().read_model(model)
    boxes, scores = find_tensors(whole, CANDIDATES)
    outputs = _detections(boxes, scores, whole, info)
    for name, port in zip(OUTPUTS, outputs, strict=True):
        port.set_names({name})
    results = [load_openvino().opset13.result(port) for port in outputs]
    for name, result in zip(OUTPUTS, results, strict=True):
        result.set_friendly_name(name)
    graph = load_openvino().Model(results, whole.get_parameters(), info.name)
    for key, value in model_info(info).items():
        graph.set_rt_info(value, ["model_info", key])
    graph.validate_nodes_and_infer_types()
    return graph


def model_info(info: ModelInfo) -> dict[str, str]:
    """What OpenVINO's Model API and DL Streamer read of a file, and retinart's own metadata.

    There is no `model_type`: it would name a reader of outputs, and none of these programs has one
    for the four outputs of EfficientNMS. Labels cannot hold spaces there, so these become "_".
    """
    canvas = info.resize.canvas
    return {
        "labels": " ".join("_".join(name.split()) or "_" for name in info.classes),
        "confidence_threshold": str(info.thresholds.score_thresh),
        "iou_threshold": str(info.thresholds.nms_thresh),
        "resize_type": "fit_to_window" if canvas else "standard",
        "pad_value": str(info.resize.pad_value[0]),
        "reverse_input_channels": "False",  # the graph takes BGR and turns it where it must
        METADATA_KEY: json.dumps(json.loads(info.to_json()), separators=(",", ":")),
    }


def _detections(boxes: Any, scores: Any, whole: Any, info: ModelInfo) -> list[Any]:
    """The output ports: counts (N, 1), boxes (N, M, 4), scores (N, M) and classes (N, M)."""
    ops = load_openvino().opset13
    thresholds = info.thresholds
    most = thresholds.detections_per_img
    by_class = ops.transpose(_best_pairs(scores, thresholds), np.array([0, 2, 1]))  # (N, K, C)
    nms = ops.multiclass_nms(
        boxes,
        by_class,
        None,
        sort_result_type="score",
        output_type="i32",
        # the operator keeps scores that equal the threshold
        score_threshold=float(np.nextafter(np.float32(thresholds.score_thresh), np.float32(2))),
        iou_threshold=thresholds.nms_thresh,
        keep_top_k=most,
        normalized=not info.variant.box_plus_one,
    )
    rows, counts = nms.output(0), nms.output(2)  # (all, 6): class, score, xyxy, image by image
    zero, one = (ops.constant(np.int32(value)) for value in (0, 1))
    first = ops.cumsum(counts, zero, exclusive=True)
    place = ops.constant(np.arange(most, dtype=np.int32)[None])
    counts = ops.unsqueeze(counts, one)  # (N, 1)
    valid = ops.less(place, counts)  # (N, M)
    index = ops.select(valid, ops.add(ops.unsqueeze(first, one), place), zero)
    spare = ops.constant(np.zeros((1, 6), np.float32))  # so that there is a row to read
    rows = ops.gather(ops.concat([rows, spare], 0), index, zero)  # (N, M, 6)
    valid = ops.unsqueeze(valid, ops.constant(np.int32(2)))
    rows = ops.select(valid, rows, ops.constant(np.float32(0)))
    label, score, xyxy = ops.variadic_split(
        rows, ops.constant(np.int32(2)), ops.constant(np.array([1, 1, 4], np.int32))
    ).outputs()
    label, score = (ops.squeeze(port, ops.constant(np.int32(2))) for port in (label, score))
    if not info.variant.clip_before_nms:
        xyxy = _clipped(xyxy, whole, plus_one=info.variant.box_plus_one)
    label = ops.convert(label, "i32")  # of a channel
    if info.dropped_classes:
        label = ops.gather(ops.constant(np.array(info.class_ids, np.int32)), label, zero)
        label = ops.select(ops.squeeze(valid, ops.constant(np.int32(2))), label, zero)
    return [counts.output(0), xyxy, score.output(0), label.output(0)]


def _best_pairs(scores: Any, thresholds: Thresholds) -> Any:
    """The scores (N, C, K) with 0 for the pairs that are not among the best `nms_candidates`.

    Sorting all pairs takes long, so only a batch with an image that has more pairs above the
    threshold does it.
    """
    openvino = load_openvino()
    ops, most = openvino.opset13, thresholds.nms_candidates
    shape = scores.get_partial_shape()
    if all(shape[i].is_static for i in (1, 2)) and (
        shape[1].get_length() * shape[2].get_length() <= most
    ):
        return scores

    above = ops.greater(scores, ops.constant(np.float32(thresholds.score_thresh)))
    counts = ops.reduce_sum(ops.convert(above, "i32"), np.array([1, 2]))  # (N,)
    many = ops.reduce_max(counts, np.array([0]))
    condition = ops.greater(many, ops.constant(np.int32(most)))

    given = ops.parameter(shape, np.float32)
    flat = ops.reshape(given, np.array([0, -1]), True)  # (N, C * K)
    best = ops.topk(flat, ops.constant(np.int64(most)), 1, "max", "value", "i32", True)
    zeros = ops.multiply(flat, ops.constant(np.float32(0)))
    best = ops.scatter_elements_update(
        zeros, best.output(1), best.output(0), ops.constant(np.int64(1))
    )
    best = ops.reshape(best, ops.shape_of(given), False)
    same = ops.parameter(shape, np.float32)
    then = openvino.Model([ops.result(best)], [given], "the best pairs")
    other = openvino.Model([ops.result(same)], [same], "all pairs")

    choice = ops.if_op(condition.output(0))
    choice.set_then_body(then)
    choice.set_else_body(other)
    choice.set_input(scores, given, same)
    return choice.set_output(then.results[0], other.results[0])


def _clipped(boxes: Any, whole: Any, *, plus_one: bool) -> Any:
    """Boxes (N, M, 4) clipped to the input's frame; corners are inclusive when `plus_one`."""
    ops = load_openvino().opset13
    size = ops.gather(
        ops.shape_of(find_tensors(whole, [INPUT])[0]),
        ops.constant(np.array([2, 1, 2, 1])),
        ops.constant(np.int64(0)),
    )
    edge = ops.subtract(ops.convert(size, "f32"), ops.constant(np.float32(plus_one)))
    return ops.minimum(ops.maximum(boxes, ops.constant(np.float32(0))), edge).output(0)
