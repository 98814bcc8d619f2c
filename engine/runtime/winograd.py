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
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import polynomial

from retinart.engine.runtime.openvino_api import load_openvino

_POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))  # and infinity
_OUT, _KERNEL = 4, 3
_IN = _OUT + _KERNEL - 1

_A_MS = 1.1e8  # multiplications, on the CPU that `expected_times` is of
_MS_A_MIB = 0.1  # that a transformed weight must save, for each MiB that it needs more
_MOST_OUTPUTS = 512  # in one product: of all 819 at once, R50 at 600 would take 56 MiB more
_CHUNK = 1 << 16

Sizes = tuple[int, int, int, int]  # channels, outputs, height and width
Times = tuple[float, float]  # milliseconds of the direct sum, and by Winograd's algorithm
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


def use_winograd(
    model: Any, saves: Callable[[Sizes], float] | None = None, *, always: bool = False
) -> int:
    """Replace the convolutions of an `openvino.Model` that become faster; returns how many.

    These are 3x3, in FP32, without stride, dilation or groups, and padded by 1, on inputs whose
    height and width are fixed.

    Args:
        model: changed in place.
        saves: milliseconds that it saves in a convolution; None takes `expected_saving`.
        always: replace also the convolutions that become slower.
    """
    weights: dict[str, list[Any]] = {}  # by name: heads share theirs between levels
    found = convolutions(model)
    found = found if always else _worth_it(found, saves or expected_saving)
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


def convolutions(model: Any) -> list[Any]:
    """The convolutions of an `openvino.Model` that can be replaced."""
    return [op for op in model.get_ordered_ops() if _fits(op)]


def sizes_of(convolution: Any) -> Sizes:
    """Channels, outputs, height and width of one."""
    outputs, channels, _, _ = convolution.input_value(1).get_shape()
    shape = convolution.input_value(0).get_partial_shape()
    return channels, outputs, shape[2].get_length(), shape[3].get_length()


def expected_times(sizes: Sizes) -> Times:
    """The times of a convolution, from its sizes.

    Costs are counted in multiplications that take as long, on a CPU with AVX512: 230 for a value of
    an input's tiles, 85 for one of an output's, and 36 for reading a weight. See
    benchmarks/results/winograd.md.
    """
    channels, outputs, height, width = sizes
    tiles = math.ceil(height / _OUT) * math.ceil(width / _OUT)
    product = channels * outputs * (tiles + 36)
    moving = tiles * (230 * channels + 85 * outputs)
    direct = _KERNEL**2 * channels * outputs * height * width
    return direct / _A_MS, _IN**2 * (product + moving) / _A_MS


def saving(times: Times, margin: float) -> float:
    """Milliseconds that are saved; 0 where Winograd's algorithm is not faster by a margin."""
    direct, fast = times
    return direct - fast if fast < (1 - margin) * direct else 0.0


def expected_saving(sizes: Sizes) -> float:
    """What is saved by `expected_times`, which are off by a tenth."""
    return saving(expected_times(sizes), 0.1)


def _worth_it(found: list[Any], saves: Callable[[Sizes], float]) -> list[Any]:
    """Those that become faster, and whose weights are worth their memory.

    Convolutions that share a weight share its cost.
    """
    faster = [(op, saved) for op in found if (saved := saves(sizes_of(op))) > 0]
    together: defaultdict[str, float] = defaultdict(float)
    for op, saved in faster:
        together[_name(op)] += saved
    return [op for op, _ in faster if together[_name(op)] > _MS_A_MIB * _more_mib(op)]


def _name(op: Any) -> str:
    """The name of a convolution's weight."""
    name: str = op.input_value(1).get_node().get_friendly_name()
    return name


def _more_mib(op: Any) -> float:
    """Memory that the transformed weight needs more than the weight."""
    channels, outputs, _, _ = sizes_of(op)
    return 4 * (_IN**2 - _KERNEL**2) * channels * outputs / (1 << 20)


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


def _winograd(op: Any, weights: dict[str, list[Any]]) -> Any:
    openvino = load_openvino()
    ops = openvino.opset13

    def shape(*sizes: int) -> Any:
        return ops.constant(np.array(sizes, np.int64))

    c, o, h, w = sizes_of(op)
    high, wide = math.ceil(h / _OUT), math.ceil(w / _OUT)
    tiles = high * wide
    of_output, _, of_input = transforms()
    name = _name(op)
    if name not in weights:
        values = _transformed(op.input_value(1).get_node().get_data())
        parts = np.array_split(values, math.ceil(o / _MOST_OUTPUTS), axis=2)
        weights[name] = [ops.constant(np.ascontiguousarray(p), shared_memory=False) for p in parts]

    x = ops.reshape(op.input_value(0), shape(-1, 1, h, w), False)  # (N * C, 1, H, W)
    kernels = ops.constant(of_input.astype(np.float32).reshape(_IN**2, 1, _IN, _IN))
    pad = [_OUT * high + 1 - h, _OUT * wide + 1 - w]  # to whole tiles, and 1
    x = ops.convolution(x, kernels, [_OUT, _OUT], [1, 1], pad, [1, 1])  # (N * C, 36, high, wide)
    x = ops.reshape(x, shape(-1, c, _IN**2, tiles), False)
    x = ops.transpose(x, shape(0, 2, 1, 3))  # (N, 36, C, T)
    back = ops.constant(of_output.astype(np.float32))
    parts = []
    for weight in weights[name]:
        o = weight.get_shape()[2]
        y = ops.matmul(weight, x, False, False)  # (N, 36, O, T)
        y = ops.reshape(y, shape(-1, _IN**2, o * tiles), False)
        y = ops.matmul(back, y, False, False)  # (N, 16, O * T)
        y = ops.reshape(y, shape(-1, _OUT**2 * o, high, wide), False)
        y = ops.depth_to_space(y, "blocks_first", _OUT)  # (N, O, 4 high, 4 wide)
        if (_OUT * high, _OUT * wide) != (h, w):
            y = ops.slice(y, shape(0, 0), shape(h, w), shape(1, 1), shape(2, 3))
        parts.append(y)
    return parts[0] if len(parts) == 1 else ops.concat(parts, 1)


def _transformed(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(O, C, 3, 3) to (1, 36, O, C)."""
    o, c, _, _ = weight.shape
    _, of_weight, _ = transforms()
    result = np.empty((_IN**2, o * c), np.float32)
    flat = weight.reshape(o * c, _KERNEL**2)
    for begin in range(0, o * c, _CHUNK):  # in double, which needs twice the memory
        part = flat[begin : begin + _CHUNK].astype(np.float64)
        result[:, begin : begin + _CHUNK] = of_weight @ part.T
    return result.reshape(1, _IN**2, o, c)
