"""Hypothesis strategies by format: whole files that are drawn, where `mutators` damages good ones.

Each gives the bytes of a file. `drawn` makes a list of them from a seed.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import pickletools
from typing import Any

import onnx
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from retinart.engine.model.info import METADATA_KEY

File = st.SearchStrategy[bytes]
_numbers = st.one_of(
    st.integers(-3, 300), st.sampled_from((2**31, 2**63, -(2**63) - 1, 10**400)),
    st.floats(allow_nan=True, allow_infinity=True),
)  # fmt: skip
_texts = st.text(st.characters(), max_size=20)  # half surrogate pairs too
_plain: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _texts),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_texts, inner, max_size=5),
    max_leaves=12,
)
_attribute_values = st.integers(-(2**62), 2**62) | st.lists(st.integers(-9, 9), min_size=1)
_OPERATORS = (
    "Add", "Concat", "Conv", "Div", "Expand", "Gather", "If", "Loop", "MatMul", "NonMaxSuppression",
    "NonZero", "Pad", "QuantizeLinear", "Range", "ReduceMax", "Relu", "Reshape", "Resize", "Scan",
    "Slice", "Split", "Tile", "TopK", "Unsqueeze",
)  # fmt: skip
_TENSORS = (
    torch.zeros(3), torch.zeros(1).expand(1 << 33), torch.zeros(2, 0), torch.zeros(3).half(),
    torch.zeros(3, dtype=torch.complex64), torch.arange(6)[::2], torch.full((2,), float("nan")),
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn, good: bytes) -> bytes:
    """JSON: a good document, some of whose values are others; or any document."""
    value = json.loads(good)
    for _ in range(draw(st.integers(0, 3))):
        holder = value
        while isinstance(holder, dict | list) and holder:
            key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else
                                       range(len(holder))))  # fmt: skip
            if not isinstance(holder[key], dict | list) or draw(st.booleans()):
                holder[key] = draw(_plain)
                break
            holder = holder[key]
        else:
            value = draw(_plain)
    return json.dumps(value).encode()


@st.composite
def graphs(draw: st.DrawFn, good: bytes) -> bytes:
    """ONNX: a good model with further operators between its nodes, wired at random."""
    model: Any = onnx.ModelProto.FromString(good)
    graph = model.graph
    names = [name for node in graph.node for name in node.output]
    names += [constant.name for constant in graph.initializer] + [""]
    for number in range(draw(st.integers(1, 4))):
        inputs = draw(st.lists(st.sampled_from(names), max_size=4))
        operator, output = draw(st.sampled_from(_OPERATORS)), f"drawn{number}"
        node = helper.make_node(operator, inputs, [output], name=output)
        attributes = st.lists(st.sampled_from(("axis", "to", "group", "pads")), max_size=2)
        for attribute in draw(attributes):
            node.attribute.append(helper.make_attribute(attribute, draw(_attribute_values)))
        place = draw(st.integers(0, len(graph.node) - 1))
        graph.node.insert(place, node)
        if draw(st.booleans()):  # something reads it
            reader = graph.node[draw(st.integers(0, len(graph.node) - 1))]
            if reader.input:
                reader.input[0] = output
    if draw(st.booleans()):
        dims = draw(st.lists(st.integers(-1, 2**40), max_size=3))
        graph.initializer.append(TensorProto(name="more", dims=dims, data_type=1, raw_data=b"0000"))
    (entry,) = (e for e in model.metadata_props if e.key == METADATA_KEY)
    info = json.loads(entry.value)
    info["probe"] = None  # the self-test would find the change first
    entry.value = json.dumps(info)
    return bytes(model.SerializeToString())


@st.composite
def checkpoints(draw: st.DrawFn, good: bytes) -> bytes:
    """Torch files: a good one with drawn content among its own."""
    content: Any = copy.copy(torch.load(io.BytesIO(good), weights_only=True))
    inner = st.one_of(_plain, st.sampled_from(_TENSORS))
    for _ in range(draw(st.integers(1, 3))):
        holders = [content, *(value for value in content.values() if isinstance(value, dict))]
        holder = draw(st.sampled_from(holders))
        key = draw(st.sampled_from([*holder, "more"]))
        holder[key] = draw(st.one_of(inner, st.lists(inner, max_size=3)))
    target = io.BytesIO()
    torch.save(content, target, _use_new_zipfile_serialization=draw(st.booleans()))
    return target.getvalue()


def pickles() -> File:
    """Pickles of plain values, and operations at random."""
    codes = st.sampled_from([bytes([ord(one.code)]) for one in pickletools.opcodes])
    operations = st.lists(st.one_of(codes, st.binary(max_size=4)), max_size=40)
    return st.one_of(
        st.builds(pickle.dumps, _plain, st.integers(0, 5)),
        operations.map(lambda parts: b"\x80\x02" + b"".join(parts) + b"."),
    )


def names() -> File:
    """Text files, of any bytes too."""
    lines = st.lists(st.text(max_size=30), max_size=30).map("\n".join)
    return st.one_of(lines.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary())


def drawn(strategy: File, number: int, *, from_seed: int) -> list[bytes]:
    """Some files of a strategy; the same seed gives the same ones."""
    found = list[bytes]()

    @seed(from_seed)
    @settings(
        max_examples=number, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(data: bytes) -> None:
        found.append(data)

    collect()
    return found
