"""Where Q/DQ pairs go, so that TensorRT and OpenVINO fuse them into INT8 convolutions.

Rules, from NVIDIA's guidance on explicit quantization:
- the input of every convolution of the network is quantized, its output is not;
- at an addition only the skip input is, otherwise the convolution's fusion splits;
- nothing is quantized in front of a Resize, nor behind the head's last convolutions: those,
  the decoding and NMS stay in float;
- the heads run once a level on tensors of their own, so each level gets its own ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from retinart.engine.errors import BadInput
from retinart.engine.info import HEADS


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What to quantize, by names in the graph.

    Attributes:
        activations: each tensor with the (node, input index) pairs that read its quantized form.
        convolutions: nodes whose weights are quantized.
    """

    activations: dict[str, tuple[tuple[str, int], ...]]
    convolutions: tuple[str, ...]


def place(model: onnx.ModelProto, *, keep_float: frozenset[str] = frozenset()) -> Placement:
    """Find the places in a graph that `retinart export` wrote.

    Args:
        keep_float: convolutions that are left alone, by node name.

    Raises:
        BadInput: the graph is quantized already or has no network that is known.
    """
    nodes = list(model.graph.node)
    if any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in nodes):
        raise BadInput(
            "the model is quantized already",
            fix="Calibrate the FP32 file that `retinart export` wrote",
        )
    producer = {output: n for n in nodes for output in n.output}
    constants = {i.name for i in model.graph.initializer}
    last = {_behind_identity(producer, name) for name in HEADS if name in producer}
    if len(last) != len(HEADS):
        raise BadInput(
            "the graph has no head outputs that are known",
            fix="Export the model again with this retinart",
        )
    readers: dict[str, list[tuple[str, int]]] = {}
    convolutions = []
    for node in nodes:
        if node.op_type == "Conv" and node.name not in last and node.name not in keep_float:
            readers.setdefault(node.input[0], []).append((node.name, 0))
            convolutions.append(node.name)
        elif node.op_type == "Add" and not constants.intersection(node.input):
            index = _skip_input(node, producer)
            if index is not None:
                readers.setdefault(node.input[index], []).append((node.name, index))
    return Placement(
        activations={name: tuple(where) for name, where in readers.items()},
        convolutions=tuple(convolutions),
    )


def _skip_input(node: onnx.NodeProto, producer: dict[str, onnx.NodeProto]) -> int | None:
    """Which input of an addition of two feature maps is the skip; None for another addition."""
    made_by = [producer[i].op_type if i in producer else "" for i in node.input]
    if "Conv" not in made_by:
        return None
    return 1 if made_by[0] == "Conv" else 0


def _behind_identity(producer: dict[str, onnx.NodeProto], name: str) -> str:
    """Name of the node that makes a value, looking through Identity."""
    node = producer[name]
    while node.op_type == "Identity":
        node = producer[node.input[0]]
    return node.name
