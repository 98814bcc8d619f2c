"""Float islands: what an INT8 network computes in float between its INT8 layers.

Each costs a change of type on both sides, so a graph should have those that the rules of
`retinart.calib.placement` intend and no others.
"""

from __future__ import annotations

import onnx

from retinart.calib.network import network_nodes

_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")


def float_islands(model: onnx.ModelProto) -> list[tuple[str, ...]]:
    """The islands of a quantized graph, each as the names of its nodes, in the graph's order.

    What a runtime fuses into an INT8 convolution is no island: the bias, the addition of a
    quantized skip, a ReLU. A max-pool in front of a Q runs in INT8, since both can change places.
    What lies behind the last INT8 layer, as the heads' outputs do, is not between layers.
    """
    nodes = network_nodes(model)
    fused = _fused(nodes)
    islands: dict[int, list[str]] = {}
    where: dict[str, int] = {}  # tensor -> island
    for number, node in enumerate(nodes):
        if node.op_type in _QUANTIZATION or node.output[0] in fused:
            continue
        joined = {where[name] for name in node.input if name in where}
        islands[number] = [name for i in sorted(joined) for name in islands.pop(i)] + [node.name]
        where.update({tensor: number for tensor, i in where.items() if i in joined})
        where[node.output[0]] = number
    ends = {where.get(n.input[0]) for n in nodes if n.op_type == "QuantizeLinear"}
    return [tuple(names) for number, names in islands.items() if number in ends]


def _fused(nodes: list[onnx.NodeProto]) -> set[str]:
    """Tensors that INT8 convolutions make, with what runs within them."""
    producer = {output: n.op_type for n in nodes for output in n.output}
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    fused: set[str] = set()
    for node in nodes:
        quantized = [producer.get(name) == "DequantizeLinear" for name in node.input]
        runs_within = {
            "Conv": quantized[:2] == [True, True],
            "Add": any(quantized) and not fused.isdisjoint(node.input),
            "Relu": node.input[0] in fused,
            "MaxPool": node.input[0] in fused and readers.get(node.output[0]) == {"QuantizeLinear"},
        }
        if runs_within.get(node.op_type, False):
            fused.add(node.output[0])
    return fused
