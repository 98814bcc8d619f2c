"""Writing ONNX files: metadata, deterministic bytes, and a graph whose nodes are replaced.

The caller brings the `onnx.ModelProto`; the package onnx is not imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from retinart.engine.common.files import AtomicFile
from retinart.engine.errors import BadInput
from retinart.engine.model.info import METADATA_KEY, ModelInfo


class Model(Protocol):
    """What is used of an `onnx.ModelProto`."""

    @property
    def graph(self) -> Any:
        """The graph: nodes, initializers, inputs and outputs."""

    @property
    def metadata_props(self) -> Any:
        """Pairs of key and value."""

    def CopyFrom(self, other: Any) -> None:
        """Become a copy of another model."""

    def SerializeToString(self, *, deterministic: bool) -> bytes:
        """The bytes of the file."""


M = TypeVar("M", bound=Model)


def check_onnx_output(path: Path, example: str) -> None:
    """Refuse an output that cannot be written or is not named as an ONNX file, before the work.

    Args:
        example: a name to suggest.

    Raises:
        BadInput: it has another suffix, or as `AtomicFile`.
    """
    if path.suffix != ".onnx":
        raise BadInput(f"the output {path} does not end in .onnx", fix=f"Name it {example}")
    AtomicFile(path).discard()


def write_onnx(model: Model, info: ModelInfo, path: Path) -> None:
    """Write a model with its metadata. The same model and metadata give the same bytes.

    Args:
        model: changed: its metadata becomes `info`, and nothing else.
        path: written in place; pass the temporary name of `atomic_path`.
    """
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, info.to_json()
    path.write_bytes(model.SerializeToString(deterministic=True))


def with_graph(
    model: M,
    nodes: Sequence[Any],
    constants: Iterable[Any],
    inputs: Mapping[tuple[str, int], str] = MappingProxyType({}),
) -> M:
    """A copy of a model with other nodes, and with those constants that a node reads.

    Args:
        nodes: copied, so they may be the model's own.
        constants: initializers; of several with one name the first counts.
        inputs: names that inputs of nodes get, by (node's name, input's index).
    """
    result = type(model)()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:]
    result.graph.node.extend(nodes)
    unread = set()
    for node in result.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = inputs.get((node.name, index), name)
        unread.update(_reads(node))
    for constant in constants:
        if constant.name in unread:
            unread.remove(constant.name)
            result.graph.initializer.append(constant)
    return result


def _reads(node: Any) -> set[str]:
    """What a node reads, or a node of a graph inside of it."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= _reads(inner)
    return names
