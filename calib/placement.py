"""Where Q/DQ pairs go, so that TensorRT and OpenVINO fuse them into INT8 convolutions.

Rules, from NVIDIA's guidance on explicit quantization:
- The input of every convolution of the network is quantized, its output is not.
- Of an addition only the skip input is quantized. A Q/DQ pair at the other input would separate the
  addition from the convolution that it is fused with.
- A Resize reads the quantized map that a convolution reads too. The result is the skip of an
  addition. Both have one scale, so quantizing the result again changes no value.
- The raw outputs, the decoding and NMS stay in float.
- The last convolution of each head is INT8 with a float output. In float, the one for the classes
  took two fifths of the time, for a sixth of the arithmetic; the one for the boxes took 4% for 1%.
- The heads run once a level, each time on a tensor of its own, so each level gets its own ranges.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx

from retinart.calib.network import layer_of, network_nodes
from retinart.engine.errors import BadInput

GROUPED = "grouped"  # all layers with grouped convolutions, in place of their names


class Reader(NamedTuple):
    """An input of a node that reads a quantized tensor."""

    tensor: str
    node: str
    position: int  # of the input among the node's
    layer: str  # whose convolution needs it: the node's own, or the one an addition is fused with


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What to quantize, by names in the graph and in its order.

    Attributes:
        readers: inputs of nodes that read a quantized tensor.
        convolutions: nodes whose weights are quantized.
        resizes: the node and the input of each Resize whose result is a skip, by that result. The
            Resize reads the quantized input if both are quantized, and they share a threshold.
        grouped: the layers whose convolution has more than one group, as ResNeXt's have. TensorRT
            split those up in INT8 and was slower than in FP16 (NVIDIA/TensorRT issue 4529).
    """

    readers: tuple[Reader, ...]
    convolutions: tuple[str, ...]
    resizes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    grouped: tuple[str, ...] = ()

    @property
    def activations(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """Each tensor with the (node, input index) pairs that read its quantized form."""
        found: dict[str, tuple[tuple[str, int], ...]] = {}
        for reader in self.readers:
            found[reader.tensor] = (*found.get(reader.tensor, ()), (reader.node, reader.position))
        for result, (node, tensor) in self.resizes.items():
            if result in found and tensor in found:
                found[tensor] = (*found[tensor], (node, 0))
        return found

    @property
    def same_threshold(self) -> dict[str, str]:
        """The input of each Resize that is quantized as its result is, by that result."""
        found = self.activations
        return {r: t for r, (_, t) in self.resizes.items() if r in found and t in found}

    @property
    def layers(self) -> tuple[str, ...]:
        """The modules that become INT8; all levels share the modules of the heads."""
        return tuple(dict.fromkeys(layer_of(name) for name in self.convolutions))

    def matching(self, pattern: str) -> list[str]:
        """The layers that a pattern such as "backbone.layer1.*" names; GROUPED names `grouped`."""
        return list(self.grouped) if pattern == GROUPED else fnmatch.filter(self.layers, pattern)

    def without(self, layers: Collection[str]) -> Placement:
        """The same with some layers in float, and with them the skips that they are added to."""
        return Placement(
            readers=tuple(r for r in self.readers if r.layer not in layers),
            convolutions=tuple(c for c in self.convolutions if layer_of(c) not in layers),
            resizes=self.resizes,
            grouped=tuple(layer for layer in self.grouped if layer not in layers),
        )


def place(model: onnx.ModelProto) -> Placement:
    """Find the places in a graph that `retinart export` wrote.

    Raises:
        BadInput: the graph is quantized already, or `retinart export` did not write it.
    """
    nodes = network_nodes(model)
    if any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in nodes):
        raise BadInput(
            "the model is quantized already",
            fix="Calibrate the FP32 file that `retinart export` wrote",
        )
    producer = {output: n for n in nodes for output in n.output}
    constants = {i.name for i in model.graph.initializer}
    readers: list[Reader] = []
    convolutions = []
    for node in nodes:
        if node.op_type == "Conv":
            readers.append(Reader(node.input[0], node.name, 0, layer_of(node.name)))
            convolutions.append(node.name)
        elif node.op_type == "Add" and not constants.intersection(node.input):
            readers += _skip(node, producer)
    made = {r.tensor: producer.get(r.tensor) for r in readers}
    return Placement(
        readers=tuple(readers),
        convolutions=tuple(convolutions),
        grouped=tuple(dict.fromkeys(layer_of(n.name) for n in nodes if _groups(n) > 1)),
        resizes={
            tensor: (node.name, node.input[0])
            for tensor, node in made.items()
            if node is not None and node.op_type == "Resize"
        },
    )


def _groups(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if node.op_type == "Conv" and a.name == "group"), 1)


def _skip(node: onnx.NodeProto, producer: dict[str, onnx.NodeProto]) -> list[Reader]:
    """The skip input of an addition of two feature maps.

    It is the other one than the input that a convolution makes. Where no convolution makes either,
    there is nothing to fuse with, and nothing to quantize.
    """
    for main, skip in ((0, 1), (1, 0)):
        maker = producer.get(node.input[main])
        if maker is not None and maker.op_type == "Conv":
            return [Reader(node.input[skip], node.name, skip, layer_of(maker.name))]
    return []
