"""Q/DQ pairs in a graph: activations per tensor, weights per output channel, all symmetric."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.helper import make_node

from retinart.calib.numbers import INT8, Floats, Numbers
from retinart.calib.placement import Placement
from retinart.engine.model.onnx_file import with_graph
from retinart.engine.runtime.saturation import halved

Encoded = npt.NDArray[Any]


def quantize(
    model: onnx.ModelProto,
    placement: Placement,
    thresholds: dict[str, float],
    *,
    numbers: Numbers = INT8,
    weight_bits: int = 8,
    weights: Mapping[str, tuple[Encoded, Floats]] = MappingProxyType({}),
    shifts: Mapping[str, Floats] = MappingProxyType({}),
) -> onnx.ModelProto:
    """A copy of a model whose convolutions read INT8, or FP8.

    Precondition: `placement` was made from this graph, and `thresholds` names each activation.
    Postcondition: the data and the weights of every placed convolution come from a
    DequantizeLinear. Biases stay float, and all zero points are 0.

    Args:
        thresholds: the magnitude that becomes the largest number, for each activation; 0 for a
            tensor of zeros.
        numbers: what is rounded to.
        weight_bits: see `quantize_weights`.
        weights: numbers and scales of weights that were rounded already, by name.
        shifts: what is added to the bias of a convolution, by node.
    """
    constants = {i.name: i for i in model.graph.initializer}
    inputs: dict[tuple[str, int], str] = {}

    def constant(name: str, value: npt.NDArray[np.generic]) -> str:
        constants[name] = numpy_helper.from_array(value, name)
        return name

    zero = constant("quantize/zero_point", np.array(0, numbers.dtype))
    pairs: dict[str, list[onnx.NodeProto]] = {}  # Q and DQ, by the tensor that they follow
    for name, readers in placement.activations.items():
        scale = constant(f"{name}/scale", np.array(numbers.step(thresholds[name]), np.float32))
        quantized, back = f"{name}/quantized", f"{name}/dequantized"
        pairs[name] = [
            make_node("QuantizeLinear", [name, scale, zero], [quantized], f"{name}/quantize"),
            make_node("DequantizeLinear", [quantized, scale, zero], [back], f"{name}/dequantize"),
        ]
        inputs.update(dict.fromkeys(readers, back))

    nodes = []
    placed = frozenset(placement.convolutions)
    for node in model.graph.node:
        if node.name not in placed:
            continue
        name, output = node.input[1], f"{node.name}/weight"
        parts = [f"{name}/{numbers.name}", f"{name}/scale", f"{name}/zero_point"]
        if parts[0] not in constants:  # levels share the weights of the heads
            if name in weights:
                encoded, scales = weights[name]
            else:
                encoded, scales = quantize_weights(
                    numpy_helper.to_array(constants[name]), weight_bits, numbers
                )
            constant(parts[0], encoded)
            constant(parts[1], scales)
            constant(parts[2], np.zeros(len(scales), numbers.dtype))
        nodes.append(
            make_node("DequantizeLinear", parts, [output], name=f"{output}/dequantize", axis=0)
        )
        inputs[node.name, 1] = output
        if node.name in shifts and len(node.input) > 2:
            bias = numpy_helper.to_array(constants[node.input[2]]) + shifts[node.name]
            inputs[node.name, 2] = constant(f"{node.name}/bias", _halves(bias))

    nodes += [n for i in model.graph.input for n in pairs.get(i.name, [])]
    for node in model.graph.node:
        nodes.append(node)
        nodes += [n for output in node.output for n in pairs.get(output, [])]
    result = with_graph(model, nodes, constants.values(), inputs)
    onnx.checker.check_model(result, full_check=True)
    return result


def _halves(values: Floats) -> Floats:
    """The nearest values of FP16, with which a file of FP16 and INT8 rounds in the same way."""
    if np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
        return values
    return values.astype(np.float16).astype(np.float32)


def quantize_weights(
    weights: Floats, bits: int = 8, numbers: Numbers = INT8
) -> tuple[Encoded, Floats]:
    """Numbers (O, ...) and scales (O,) of weights (O, ...), symmetric for each output channel.

    Args:
        bits: 8 for integers up to 127, or 7 for integers up to 64, which overflow no CPU's sums.
            OpenVINO's runner halves 8-bit integers to the same ones where it must; see
            `saturation`.
        numbers: what is rounded to; 7 bits are for INT8.
    """
    peaks = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    scales = np.array([numbers.step(float(p)) for p in peaks], np.float32)
    shape = (-1,) + (1,) * (weights.ndim - 1)
    encoded = numbers.encode(weights / scales.reshape(shape), symmetric=True)
    return (encoded, scales) if bits == 8 else (halved(encoded), 2 * scales)
