"""Winograd's algorithm for 3x3 convolutions, written as operators of an OpenVINO graph.

A tile of 4x4 outputs is computed from 6x6 inputs with 36 multiplications a pair of channels instead
of 144: F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
The rest is additions and moving of data, which pays off with many channels. OpenVINO has no such
kernel for x86, but it has the operators:

    input tiles      each channel convolved with 36 kernels of 6x6, stride 4     (N, 36, C, T)
    product          with the transformed weights, 36 at once                    (N, 36, O, T)
    output tiles     a product with 16x36, and each 4x4 to its place             (N, O, H, W)

Tiles are interpolated at 0, plus and minus the roots of 1/2 and of 2, and infinity. The error is
twice the error of the direct sum; with the usual points (0, 1, -1, 2, -2) it is four times that.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import polynomial

from retinart.engine.runtime.openvino_api import load_openvino

_POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))  # and infinity
_OUT, _KERNEL = 4, 3
_IN = _OUT + _KERNEL - 1

Matrix = npt.NDArray[np.floating[Any]]


@functools.cache
def transforms() -> tuple[Matrix, Matrix, Matrix]:
    """The matrices of output (16, 36), weights (36, 9) and input (36, 36), for flattened tiles.

    Toom and Cook multiply polynomials of degrees 3 and 2 through their values at six points. The
    transpose of their algorithm is a correlation.
    """
    out, weight, frame = np.zeros((_OUT, _IN)), np.zeros((_IN, _KERNEL)), np.zeros((_IN, _IN))
    for i, point in enumerate(_POINTS):
        others = [p for p in _POINTS if p != point]
        out[:, i] = point ** np.arange(_OUT)
        weight[i] = point ** np.arange(_KERNEL) / math.prod(point - p for p in others)
        frame[i, :-1] = polynomial.polyfromroots(others)
    out[-1, -1] = weight[-1, -1] = 1  # infinity: the highest coefficients
    frame[-1] = polynomial.polyfromroots(_POINTS)
    return np.kron(out, out), np.kron(weight, weight), np.kron(frame, frame)


def use_winograd(model: Any, *, always: bool = False) -> int:
    """Replace the convolutions of an `openvino.Model` that become faster; returns how many.

    These are 3x3, in FP32, without stride, dilation or groups, and padded by 1, on inputs whose
    height and width are fixed.

    Args:
        model: changed in place.
        always: replace also the convolutions that become slower.
    """
    weights: dict[str, Any] = {}  # by name: heads share theirs between levels
    found = [op for op in model.get_ordered_ops() if _fits(op) and (always or _pays(op))]
    for op in found:
        output = op.output(0)
        targets = output.get_target_inputs()
        result = _winograd(op, weights).output(0)
        result.get_node().set_friendly_name(op.get_friendly_name())
        result.set_names(output.get_names())
        for target in targets:
            target.replace_source_output(result)
    if found:
        model.validate_nodes_and_infer_types()
    return len(found)


def pays(channels: int, outputs: int, height: int, width: int) -> bool:
    """Whether it is faster than the direct sum, by a tenth at least.

    Costs are counted in multiplications that take as long, on a CPU with AVX512: 230 for a value of
    an input's tiles, 85 for one of an output's, and 36 for reading a weight. See
    benchmarks/results/winograd.md.
    """
    tiles = math.ceil(height / _OUT) * math.ceil(width / _OUT)
    direct = _KERNEL**2 * channels * outputs * height * width
    product = channels * outputs * (tiles + 36)
    moving = tiles * (230 * channels + 85 * outputs)
    return _IN**2 * (product + moving) < 0.9 * direct


def _fits(op: Any) -> bool:
    if op.get_type_name() != "Convolution":
        return False
    weight, shape = op.input_value(1).get_node(), op.input_value(0).get_partial_shape()
    how = op.get_attributes()
    plain = {"strides": 1, "dilations": 1, "pads_begin": 1, "pads_end": 1}
    return bool(
        weight.get_type_name() == "Constant"
        and weight.get_element_type().get_type_name() == "f32"
        and list(weight.get_shape())[2:] == [_KERNEL, _KERNEL]
        and all(list(how[name]) == [value, value] for name, value in plain.items())
        and how["auto_pad"] == "explicit"
        and all(shape[i].is_static for i in (1, 2, 3))
    )


def _pays(op: Any) -> bool:
    outputs, channels, _, _ = op.input_value(1).get_shape()
    return pays(channels, outputs, *_size(op))


def _size(op: Any) -> tuple[int, int]:
    """Height and width of a convolution's input, and output."""
    shape = op.input_value(0).get_partial_shape()
    return shape[2].get_length(), shape[3].get_length()


def _winograd(op: Any, weights: dict[str, Any]) -> Any:
    openvino = load_openvino()
    ops = openvino.opset13

    def shape(*sizes: int) -> Any:
        return ops.constant(np.array(sizes, np.int64))

    weight = op.input_value(1).get_node()
    o, c, _, _ = weight.get_shape()
    h, w = _size(op)
    high, wide = math.ceil(h / _OUT), math.ceil(w / _OUT)
    tiles = high * wide
    of_output, of_weight, of_input = transforms()
    name = weight.get_friendly_name()
    if name not in weights:
        values = weight.get_data().reshape(o * c, _KERNEL**2).astype(np.float64)
        values = (of_weight @ values.T).astype(np.float32)
        weights[name] = ops.constant(values.reshape(1, _IN**2, o, c), shared_memory=False)

    x = ops.reshape(op.input_value(0), shape(-1, 1, h, w), False)  # (N * C, 1, H, W)
    kernels = ops.constant(of_input.astype(np.float32).reshape(_IN**2, 1, _IN, _IN))
    pad = [_OUT * high + 1 - h, _OUT * wide + 1 - w]  # to whole tiles, and 1
    x = ops.convolution(x, kernels, [_OUT, _OUT], [1, 1], pad, [1, 1])  # (N * C, 36, high, wide)
    x = ops.reshape(x, shape(-1, c, _IN**2, tiles), False)
    x = ops.transpose(x, shape(0, 2, 1, 3))  # (N, 36, C, T)
    x = ops.matmul(weights[name], x, False, False)  # (N, 36, O, T)
    x = ops.reshape(x, shape(-1, _IN**2, o * tiles), False)
    x = ops.matmul(ops.constant(of_output.astype(np.float32)), x, False, False)  # (N, 16, O * T)
    x = ops.reshape(x, shape(-1, _OUT**2 * o, high, wide), False)
    x = ops.depth_to_space(x, "blocks_first", _OUT)  # (N, O, 4 high, 4 wide)
    if (_OUT * high, _OUT * wide) != (h, w):
        x = ops.slice(x, shape(0, 0), shape(h, w), shape(1, 1), shape(2, 3))
    return x
