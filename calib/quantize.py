"""Q/DQ pairs in a graph: activations per tensor, weights per output channel, all symmetric."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from retinart.calib.placement import Placement
from retinart.engine.runtime.saturation import halved

QMAX = 127


def quantize(
    model: onnx.ModelProto,
    placement: Placement,
    thresholds: dict[str, float],
    *,
    weight_bits: int = 8,
) -> onnx.ModelProto:
    """A copy of a model with INT8 convolutions.

    Precondition: `placement` is of this graph, and `thresholds` names each of its activations.
    Postcondition: every placed convolution reads a DequantizeLinear at its data and its weights;
    biases stay float; all zero points are 0.

    Args:
        thresholds: the magnitude that becomes 127, for each activation; 0 for a tensor that is
            always zero.
        weight_bits: see `quantize_weights`.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {i.name: i for i in graph.initializer}
    new_nodes: dict[str, list[onnx.NodeProto]] = {}  # behind the tensor that they quantize
    rewired: dict[tuple[str, int], str] = {}

    def constant(name: str, value: npt.NDArray[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    zero = constant("quantize/zero_point", np.array(0, np.int8))
    for name, readers in placement.activations.items():
        scale = constant(f"{name}/scale", np.array(_scale(thresholds[name]), np.float32))
        quantized, back = f"{name}/quantized", f"{name}/dequantized"
        new_nodes[name] = [
            helper.make_node(
                "QuantizeLinear", [name, scale, zero], [quantized], name=f"{name}/quantize"
            ),
            helper.make_node(
                "DequantizeLinear", [quantized, scale, zero], [back], name=f"{name}/dequantize"
            ),
        ]
        rewired.update(dict.fromkeys(readers, back))

    placed = frozenset(placement.convolutions)
    weight_nodes: list[onnx.NodeProto] = []
    replaced: set[str] = set()
    for node in graph.node:
        if node.name not in placed:
            continue
        name = node.input[1]
        if name not in replaced:
            values = numpy_helper.to_array(weights[name])
            integers, scales = quantize_weights(values, weight_bits)
            constant(f"{name}/int8", integers)
            constant(f"{name}/scale", scales)
            constant(f"{name}/zero_point", np.zeros(len(scales), np.int8))
            replaced.add(name)
        output = f"{node.name}/weight"
        weight_nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [f"{name}/int8", f"{name}/scale", f"{name}/zero_point"],
                [output],
                name=f"{output}/dequantize",
                axis=0,
            )
        )
        rewired[node.name, 1] = output

    nodes = list(weight_nodes)
    nodes += [n for i in graph.input for n in new_nodes.get(i.name, [])]
    for node in graph.node:
        for index in range(len(node.input)):
            if (node.name, index) in rewired:
                node.input[index] = rewired[node.name, index]
        nodes.append(node)
        for output in node.output:
            nodes += new_nodes.get(output, [])
    used = {name for node in nodes for name in node.input}
    kept = [i for i in graph.initializer if i.name in used]
    nodes = [_copy(node) for node in nodes]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    onnx.checker.check_model(result, full_check=True)
    return result


def quantize_weights(
    weights: npt.NDArray[np.float32], bits: int = 8
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Integers (O, ...) and scales (O,) of weights (O, ...), symmetric for each output channel.

    Args:
        bits: 8 for integers up to 127, or 7 for those up to 64, which no CPU's sums overflow. They
            are what OpenVINO's runner makes of 8 bits where it has to; see `saturation`.
    """
    peaks = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    scales = np.array([_scale(float(p)) for p in peaks], np.float32)
    shape = (-1,) + (1,) * (weights.ndim - 1)
    integers = np.clip(np.round(weights / scales.reshape(shape)), -QMAX, QMAX)
    integers = integers.astype(np.int8)
    return (integers, scales) if bits == 8 else (halved(integers), 2 * scales)


def _scale(peak: float) -> float:
    """Step of a symmetric int8 whose 127 is `peak`, or a little more: a value that FP16 holds.

    So the same file quantizes alike whether its float part is FP32 or FP16. Any step will do for
    a tensor of zeros.
    """
    step = peak / QMAX if peak > 0 else 1.0
    with np.errstate(over="ignore"):
        half = np.float16(step)
    if float(half) < step:  # NumPy would compare in FP16, where the two are equal
        half = np.nextafter(half, np.float16(np.inf))
    return float(half) if np.isfinite(half) else step


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
