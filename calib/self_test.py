"""The self-test of a file whose precision was changed."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from retinart.engine.model.info import ModelInfo
from retinart.engine.runtime.saturation import halved
from retinart.engine.self_test.write import with_probe


def with_self_test(model: onnx.ModelProto, info: ModelInfo) -> ModelInfo:
    """Metadata with the self-test of this model, which replaces an older one.

    Args:
        model: as it will be written; its own metadata does not matter.
        info: its metadata to be.
    """
    coarser = one_bit_less(model) if info.precision.startswith("int8") else None
    return with_probe(
        info,
        model.SerializeToString(deterministic=True),
        None if coarser is None else coarser.SerializeToString(),
    )


def one_bit_less(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose INT8 weights are half as large, and their scales twice as large."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {i.name: i for i in result.graph.initializer}
    weights = {
        node.input[0]: node.input[1]
        for node in result.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    for name, scale in weights.items():
        values, step = (numpy_helper.to_array(constants[n]) for n in (name, scale))
        constants[name].CopyFrom(numpy_helper.from_array(halved(values), name))
        constants[scale].CopyFrom(numpy_helper.from_array((2 * step).astype(step.dtype), scale))
    return result
