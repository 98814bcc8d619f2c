"""The quantizable part of an exported graph: from the normalised image to the raw head outputs.

What comes before it (normalisation) and after it (decoding, NMS) stays in FP32 whatever happens.
"""

from __future__ import annotations

import hashlib

import onnx

from retinart.engine.errors import BadInput
from retinart.engine.model.info import HEADS, NORMALIZED


def network_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The network's nodes, in the graph's order; Q/DQ pairs and weights' DQ are among them.

    Raises:
        BadInput: the graph is none that `retinart export` wrote.
    """
    producer = {output: n for n in model.graph.node for output in n.output}
    if NORMALIZED not in producer or any(name not in producer for name in HEADS):
        raise BadInput(
            "the graph has no network that is known",
            why=f"it lacks {NORMALIZED} or a raw head output",
            fix="Export the model again with this retinart",
        )
    found: set[str] = set()
    waiting = list(HEADS)
    while waiting:
        tensor = waiting.pop()
        if tensor == NORMALIZED or tensor not in producer or tensor in found:
            continue
        found.add(tensor)
        waiting += producer[tensor].input
    return [n for n in model.graph.node if n.output[0] in found]


def layer_of(node: str) -> str:
    """The module that a node runs: levels share the heads' modules, as `name@level`."""
    return node.split("@")[0]


def network_sha256(model: onnx.ModelProto) -> str:
    """Changes with any weight and any node of the network, and with nothing else in the file."""
    digest = hashlib.sha256()
    nodes = network_nodes(model)
    for node in nodes:
        digest.update(node.SerializeToString(deterministic=True))
    used = {name for node in nodes for name in node.input}
    for initializer in sorted(model.graph.initializer, key=lambda i: i.name):
        if initializer.name in used:
            digest.update(initializer.SerializeToString(deterministic=True))
    return digest.hexdigest()
