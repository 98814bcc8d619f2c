"""The bytes of an ONNX file's graph: their hash, and more outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from retinart.engine.model.protobuf import as_bytes, fields, message


def graph_sha256(model: bytes) -> str:
    """The SHA-256 of the graph's bytes in a file's bytes; the graph holds nodes and weights.

    Raises:
        ValueError: the file is truncated.
    """
    digest = hashlib.sha256()
    for number, value in fields(memoryview(model), "it"):
        if number == 7:
            digest.update(as_bytes(value))
    return digest.hexdigest()


def with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """An ONNX file whose graph has more outputs.

    Protobuf merges a message that stands twice, so the outputs are appended as a second graph.

    Args:
        model: the file's bytes.
        names: tensors of the graph; those that are outputs already are left out by the caller.
    """
    values = b"".join(message(12, message(1, name.encode())) for name in names)
    return model + message(7, values)
