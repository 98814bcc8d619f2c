"""INT8 on CPUs without VNNI: weights of 7 bits, where products of 8 bits would overflow.

Without VNNI an x86 CPU adds two products of a uint8 and an int8 in 16 bits, and what does not fit
saturates. OpenVINO 2026.4.1 shifts signed activations to 0..255, so a pair of weights overflows
when it is larger than 32767 / 255 = 128. Weights from -64 to 64 cannot.

On BCCD's 72 test pictures (R18 at 256x320, OpenVINO held to AVX512 without VNNI) four INT8 files
lost 10.9 to 17.8 AP with 8 bits. With 7 bits they lost at most 0.1, as on a CPU with VNNI.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from retinart.engine.runtime.openvino_api import load_openvino, openvino_core

LARGEST = 64  # magnitude of a 7-bit weight: 255 * (64 + 64) < 2**15


def avoid_saturation(model: Any, device: str) -> int:
    """Give the INT8 weights of an `openvino.Model` 7 bits, if the device saturates with 8.

    Args:
        model: changed in place; one with no INT8 weight above 64 stays as it is.
        device: an OpenVINO device, such as "CPU".

    Returns:
        How many weight tensors changed.
    """
    found = [op for op in model.get_ops() if _overflows(op)]
    if not found or not saturates(device):
        return 0
    ops = load_openvino().opset13
    scales = {scale.get_friendly_name(): scale for op in found for scale in _scales(op)}
    for op in found:
        _replace(op, ops.constant(halved(op.get_data())))
    for scale in scales.values():
        values = scale.get_data()
        _replace(scale, ops.constant((values * 2).astype(values.dtype)))
    model.validate_nodes_and_infer_types()
    return len(found)


def can_saturate(model: Any) -> bool:
    """Whether an `openvino.Model` has INT8 weights that are too large for a CPU without VNNI."""
    return any(_overflows(op) for op in model.get_ops())


@functools.cache
def saturates(device: str = "CPU") -> bool:
    """Whether a device adds products of 8-bit integers in too few bits.

    This runs a convolution of 127s by 127s and looks at the sum rather than at the CPU's flags. The
    process keeps the answer. It is False for a device that cannot run the convolution.
    """
    openvino = load_openvino()
    ops, channels = openvino.opset13, 16
    low, high = np.float32(-128), np.float32(127)
    x = ops.parameter([1, channels, 1, 1], np.float32)
    quantized = ops.fake_quantize(x, low, high, low, high, 256)
    integers = ops.constant(np.full((channels, channels, 1, 1), 127, np.int8))
    weight = ops.multiply(
        ops.convert(integers, np.float32), np.ones((channels, 1, 1, 1), np.float32)
    )
    y = ops.convolution(quantized, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    try:
        compiled = openvino_core().compile_model(
            openvino.Model([y], [x], "extremes"), device, {"INFERENCE_PRECISION_HINT": "f32"}
        )
        found = compiled({0: np.full((1, channels, 1, 1), 127, np.float32)})[0]
    except RuntimeError:  # loading the model itself reports what is wrong with the device
        return False
    return bool(np.abs(found / (channels * 127 * 127) - 1).max() > 0.01)


def halved(integers: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Half of each weight, rounded so that the sums over output channels hardly change.

    Odd weights have no half. They go up and down in turn, so the errors cancel where neighbouring
    inputs are alike. That left 30.6 dB of signal to noise at the logits of R18 on BCCD, where
    rounding to even left 27.6 dB, and 8 bits with VNNI 31.3 dB.

    Args:
        integers: (O, ...) int8.

    Returns:
        The same shape, from -64 to 64. The errors of a channel add up to 0, or to 1/2 towards 0.
    """
    flat = integers.reshape(len(integers), -1).astype(np.int32)
    odd = flat % 2 != 0
    down_first = flat.sum(axis=1, keepdims=True) > 0
    up = (odd.cumsum(axis=1) + down_first) % 2 == 1
    result: npt.NDArray[np.int8] = (flat // 2 + (odd & up)).astype(np.int8)
    return result.reshape(integers.shape)


def _overflows(op: Any) -> bool:
    """Whether a constant holds a convolution's INT8 weights and one of them is too large."""
    return (
        op.get_type_name() == "Constant"
        and op.get_element_type().get_type_name() == "i8"
        and len(op.get_shape()) == 4
        and bool(np.abs(op.get_data().astype(np.int16)).max(initial=0) > LARGEST)
    )


def _scales(op: Any) -> list[Any]:
    """The constants with the scales of INT8 weights, found at each reader of the weights."""
    found = []
    for target in op.output(0).get_target_inputs():
        reader = target.get_node()
        if reader.get_type_name() == "Multiply":
            scale = reader.input_value(1).get_node()
            while scale.get_type_name() != "Constant":  # a Reshape
                scale = scale.input_value(0).get_node()
            found.append(scale)
        else:  # Convert, or the Subtract of a zero point
            found += _scales(reader)
    return found


def _replace(old: Any, new: Any) -> None:
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(new.output(0))
