"""The quantizable part of an exported graph: from the normalised image to the raw head outputs.

Normalisation before it, and decoding and NMS after it, always stay in FP32.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from retinart.engine.errors import BadInput
from retinart.engine.model.info import HEADS, NORMALIZED, ModelInfo
from retinart.engine.model.onnx_file import write_onnx


def network_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The network's nodes, in the graph's order; Q/DQ pairs and weights' DQ are among them.

    Raises:
        BadInput: `retinart export` did not write this graph.
    """
    producer = {output: n for n in model.graph.node for output in n.output}
    if NORMALIZED not in producer or any(name not in producer for name in HEADS):
        raise BadInput(
            "`retinart export` did not write this graph",
            why=f"the tensor {NORMALIZED} or a raw head output is missing",
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
    """The module that a node runs. Levels share the modules of the heads, as `name@level`."""
    return node.split("@")[0]


def network_sha256(model: onnx.ModelProto) -> str:
    """A hash of the network's weights and nodes, and of nothing else in the file."""
    digest = hashlib.sha256()
    nodes = network_nodes(model)
    for node in nodes:
        digest.update(node.SerializeToString(deterministic=True))
    used = {name for node in nodes for name in node.input}
    for initializer in sorted(model.graph.initializer, key=lambda i: i.name):
        if initializer.name in used:
            digest.update(initializer.SerializeToString(deterministic=True))
    return digest.hexdigest()


@contextmanager
def as_file(model: onnx.ModelProto, info: ModelInfo | None = None) -> Iterator[Path]:
    """A temporary file that holds a model, with metadata that are written into the model."""
    with tempfile.TemporaryDirectory(prefix="retinart-") as folder:
        path = Path(folder) / "model.onnx"
        if info is None:
            onnx.save(model, path)
        else:
            write_onnx(model, info, path)
        yield path
