"""Where Q/DQ pairs go, so that TensorRT and OpenVINO fuse them into INT8 convolutions.

Rules, from NVIDIA's guidance on explicit quantization:
- the input of every convolution of the network is quantized, its output is not;
- at an addition only the skip input is, otherwise the convolution's fusion splits;
- nothing is quantized in front of a Resize, nor are the raw outputs, the decoding and NMS;
- the last convolutions of the heads are INT8 like the others, with float outputs: the class one is
  a sixth of all arithmetic, and took two fifths of the time when it was float, the box one is a
  hundredth of it and took a twenty-fifth;
- the heads run once a level on tensors of their own, so each level gets its own ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from retinart.calib.network import layer_of, network_nodes
from retinart.engine.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What to quantize, by names in the graph.

    Attributes:
        activations: each tensor with the (node, input index) pairs that read its quantized form.
        convolutions: nodes whose weights are quantized.
    """

    activations: dict[str, tuple[tuple[str, int], ...]]
    convolutions: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The modules that become INT8, in the graph's order; levels share those of the heads."""
        return tuple(dict.fromkeys(layer_of(name) for name in self.convolutions))


def place(model: onnx.ModelProto, *, keep_float: frozenset[str] = frozenset()) -> Placement:
    """Find the places in a graph that `retinart export` wrote.

    Args:
        keep_float: layers that are left alone, by name; a skip into one is left alone with it.

    Raises:
        BadInput: the graph is quantized already or has no network that is known.
    """
    nodes = network_nodes(model)
    if any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in nodes):
        raise BadInput(
            "the model is quantized already",
            fix="Calibrate the FP32 file that `retinart export` wrote",
        )
    producer = {output: n for n in nodes for output in n.output}
    constants = {i.name for i in model.graph.initializer}
    readers: dict[str, list[tuple[str, int]]] = {}
    convolutions = []
    for node in nodes:
        if node.op_type == "Conv":
            if layer_of(node.name) not in keep_float:
                readers.setdefault(node.input[0], []).append((node.name, 0))
                convolutions.append(node.name)
        elif node.op_type == "Add" and not constants.intersection(node.input):
            index = _skip_input(node, producer, keep_float)
            if index is not None:
                readers.setdefault(node.input[index], []).append((node.name, index))
    return Placement(
        activations={name: tuple(where) for name, where in readers.items()},
        convolutions=tuple(convolutions),
    )


def _skip_input(
    node: onnx.NodeProto, producer: dict[str, onnx.NodeProto], keep_float: frozenset[str]
) -> int | None:
    """Which input of an addition of two feature maps is the skip.

    None where no INT8 convolution makes the other input, so that there is nothing to fuse with.
    """
    for main, skip in ((0, 1), (1, 0)):
        maker = producer.get(node.input[main])
        if maker is not None and maker.op_type == "Conv":
            return None if layer_of(maker.name) in keep_float else skip
    return None
