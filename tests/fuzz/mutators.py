"""Damage by format. The same seed gives the same input."""

from __future__ import annotations

import io
import json
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import torch

from retinart.engine.model.info import METADATA_KEY
from retinart.engine.model.onnx_bytes import graph_sha256

Mutator = Callable[[bytes, random.Random], bytes]
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 7, 2**31, 2**63, 10**400, 0.5, -1e308, float("nan"), float("inf"), "",
    "x", "\ud800", "\0", "../../x", "é" * 300, [], {}, [[]], {"a": 1}, [0] * 5000, "1",
)  # fmt: skip
_WORDS = (
    b"", b"-1", b"0", b"1e400", b"nan", b"9" * 5000, b"0x", b"x", b"\n", b" ", b"\xff", b"\0",
    b"\x1b[2J", b"&a", b"*a", b"[", b"{", b":", b"- ", b"!!int", b"<", b"</", b"<!--", b"&#0;",
    b"&amp;", b"<![CDATA[",
)  # fmt: skip


def any_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped bits, a cut, zeros, a part that is doubled or missing."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not damaged:
            break
        start = rng.randrange(len(damaged))
        end = min(len(damaged), start + rng.choice((1, 2, 8, 100, 4000)))
        kind = rng.randrange(6)
        if kind < 2:
            damaged[start] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del damaged[start:]
        elif kind == 3:
            damaged[start:end] = bytes(end - start)
        elif kind == 4:
            damaged[start:start] = damaged[start:end]
        else:
            del damaged[start:end]
    return bytes(damaged)


def any_json(data: bytes, rng: random.Random) -> bytes:
    """Odd values, missing and additional fields, deep nesting; or damage to the text."""
    if rng.random() < 0.15:
        return any_bytes(data, rng)
    if rng.random() < 0.05:
        return b"[" * 5000 + b"]" * 5000
    return json.dumps(_changed(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def _changed(value: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice((1, 1, 1, 3))):
        path = _some_path(value, rng)
        if not path:
            return rng.choice(ODD)
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        kind = rng.randrange(4)
        if kind == 0:
            del holder[path[-1]]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(("more", "schema", "\ud800", ""))] = rng.choice(ODD)
        else:
            holder[path[-1]] = rng.choice(ODD)
    return value


def _some_path(value: Any, rng: random.Random) -> list[Any]:
    path: list[Any] = []
    while isinstance(value, dict | list) and value and (not path or rng.random() < 0.7):
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        path.append(key)
        value = value[key]
    return path


def any_onnx(data: bytes, rng: random.Random) -> bytes:
    """Damage to the bytes, the graph or the metadata; the probe's hash is made to fit."""
    if rng.random() < 0.2:
        return any_bytes(data, rng)
    model: Any = onnx.ModelProto.FromString(data)
    (entry,) = (e for e in model.metadata_props if e.key == METADATA_KEY)
    if rng.random() < 0.25:
        text = any_json(entry.value.encode(), rng)
        entry.value = text.decode("utf-8", "replace")
        return bytes(model.SerializeToString())
    for _ in range(rng.choice((1, 1, 2))):
        _change_graph(model, rng)
    info = json.loads(entry.value)
    if rng.random() < 0.5:
        info["probe"] = None
    else:
        info["probe"]["graph_sha256"] = graph_sha256(model.SerializeToString())
    entry.value = json.dumps(info)
    return bytes(model.SerializeToString())


def _change_graph(model: Any, rng: random.Random) -> None:
    graph = model.graph
    node, constant = rng.choice(graph.node), rng.choice(graph.initializer)
    names = [name for one in graph.node for name in one.output] + [
        c.name for c in graph.initializer
    ]
    kind = rng.randrange(13)
    if kind == 0 and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice((*names, "", "none"))
    elif kind == 2:
        node.op_type = rng.choice([one.op_type for one in graph.node] + ["If", "Range", "Tile"])
    elif kind == 3 and node.attribute:
        attribute = rng.choice(node.attribute)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice((-1, 0, 1, 9, 2**40))
        attribute.i = rng.choice((-1, 0, 1, 2, 16, 2**40))
        attribute.type = rng.choice((attribute.type, 1, 2, 7))
    elif kind == 4 and node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]
    elif kind == 5 and constant.dims:
        constant.dims[rng.randrange(len(constant.dims))] = rng.choice((-1, 0, 1, 2, 2**40))
    elif kind == 6 and constant.dims:
        dims = list(constant.dims)
        rng.shuffle(dims)
        del constant.dims[:]
        constant.dims.extend(dims)
    elif kind == 7:
        constant.data_type = rng.choice((1, 2, 3, 6, 7, 8, 10, 11))
    elif kind == 8:  # another value of a small constant, such as a shape or an axis
        small = [c for c in graph.initializer if 0 < len(c.raw_data) <= 64]
        chosen = rng.choice(small)
        values = onnx.numpy_helper.to_array(chosen).copy()
        number = np.int64(rng.choice((-1, 0, 1, 3, 100, 2**30)))
        values.ravel()[rng.randrange(values.size)] = number.astype(values.dtype)
        chosen.raw_data = np.ascontiguousarray(values).tobytes()
    elif kind == 9:
        del graph.node[rng.randrange(len(graph.node))]
    elif kind == 10:
        graph.node.insert(rng.randrange(len(graph.node)), node)
    elif kind == 11:
        value = rng.choice((*graph.input, *graph.output))
        sizes = value.type.tensor_type.shape.dim
        sizes[rng.randrange(len(sizes))].dim_value = rng.choice((0, -1, 1, 64, 2**40))
    else:
        constant.raw_data = constant.raw_data[: rng.randrange(len(constant.raw_data) + 1)]


def any_checkpoint(data: bytes, rng: random.Random) -> bytes:
    """Damage to the bytes, the pickle, or the content of a torch file."""
    kind = rng.randrange(3)
    if kind == 0:
        return any_bytes(data, rng)
    if kind == 1:
        source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for name in source.namelist():
                part = source.read(name)
                part = any_bytes(part, rng) if name.endswith(".pkl") else part
                archive.writestr(zipfile.ZipInfo(name), part)  # a name alone would add the time
        return target.getvalue()
    content: Any = torch.load(io.BytesIO(data), weights_only=True)
    odd = (*ODD, torch.zeros(1).expand(1 << 33), torch.zeros(3, dtype=torch.complex64), {1: 2})
    holder = rng.choice(list(_holders(content)))
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    if rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = rng.choice(odd)
    target = io.BytesIO()
    torch.save(content, target, _use_new_zipfile_serialization=rng.random() < 0.8)
    return target.getvalue()


def _holders(value: Any) -> Iterator[Any]:
    """The dicts and lists in a value that are not empty, itself among them."""
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def any_pickle(data: bytes, rng: random.Random) -> bytes:
    """Damage to a pickle's operations."""
    if rng.random() < 0.7:
        return any_bytes(data, rng)
    codes = b"(.0125]})ae2buctRQhgjqrpX\x80\x81\x85\x86\x87\x88\x8a\x8c\x8e\x94\x95\x96l"
    forged = bytes(rng.choice(codes) for _ in range(rng.randrange(3, 60)))
    start = rng.randrange(len(data))
    return data[:start] + forged + data[start:] if rng.random() < 0.5 else forged + b"."


def any_text(data: bytes, rng: random.Random) -> bytes:
    """Odd lines and bytes."""
    return any_bytes(data, rng) + bytes(rng.randrange(256) for _ in range(rng.randrange(50)))


def any_words(data: bytes, rng: random.Random) -> bytes:
    """Odd words in a text, or damage to its bytes."""
    if rng.random() < 0.3:
        return any_bytes(data, rng)
    words = re.findall(rb"\w+|\s+|.", data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(words))
        words[place] = rng.choice(_WORDS) if rng.random() < 0.8 else words[place] * 300
    return b"".join(words)
