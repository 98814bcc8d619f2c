"""The graph of an ONNX file, read and checked before a runtime sees it.

Runtimes trust what they read: a convolution without inputs crashes OpenVINO's reader. The reader
here goes through the whole file except the weights' values, without a library. It lets through the
operators that retinart writes, each with as many inputs as it takes, and tensors whose values stand
in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from retinart.engine.model.protobuf import (
    Value,
    as_bytes,
    count_numbers,
    fields,
    numbers,
    signed,
    text,
)
from retinart.engine.model.protobuf import number as as_number

# inputs that an operator needs and takes at most, and its outputs; all that retinart writes
_COUNTS = (
    (1, 1, 1, "Abs Cast ConstantOfShape Exp Floor Identity MaxPool Neg NonZero Not Relu Shape "
        "Sigmoid Transpose"),
    (1, 3, 1, "Clip ReduceMax ReduceMin ReduceSum Squeeze"),
    (1, 4, 1, "Resize"),
    (1, 1000, 1, "Concat Max Min"),
    (2, 2, 1, "Add And Div Equal Expand Gather GatherElements GatherND Greater GreaterOrEqual Less "
        "LessOrEqual MatMul Mod Mul Or Pow Reshape Sub Tile Unsqueeze"),
    (2, 2, 2, "TopK"),
    (2, 3, 1, "Conv DequantizeLinear QuantizeLinear"),
    (2, 4, 1, "Pad"),
    (3, 3, 1, "InstanceNormalization Range ScatterElements ScatterND Where"),
    (3, 5, 1, "Slice"),
)  # fmt: skip
_LOOP = "Loop"  # the only operator with a graph in it
_DEPTH = 2  # loops in loops
_MOST_TURNS = 512  # of a loop: NMS looks at 300 blocks, and settles one in 64 turns
OPERATORS = {name: counts for *counts, names in _COUNTS for name in names.split()}
OPSETS = range(17, 25)
_IR_VERSIONS = range(7, 14)
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 17: 1}  # of TensorProto's
FLOAT16, UINT8, INT8, INT64, FLOAT8 = 10, 2, 3, 7, 17
_ONE_UP = frozenset(("group", "strides", "dilations", "kernel_shape"))  # attributes from 1 on
_FROM_0 = frozenset(("pads",))
_MOST_NODES, _LARGEST = 200_000, 1 << 24
_NAMED = frozenset(("", "ai.onnx"))
_SAME_CHANNELS = frozenset(("Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Add"))

_NOTHING: Mapping[str, None] = MappingProxyType({})

Dims = tuple["int | str", ...]  # a text for a size that varies


@dataclass(frozen=True)
class Tensor:
    """A constant: its TensorProto type, its shape, and the value of a whole number alone."""

    kind: int
    dims: tuple[int, ...]
    value: int | None = None


@dataclass(frozen=True)
class Node:
    """An operator and the names of its tensors."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str = ""


@dataclass
class Graph:
    """What a file's graph holds, by name, in the file's order."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Dims] = field(default_factory=dict)
    outputs: dict[str, Dims] = field(default_factory=dict)

    @property
    def producers(self) -> Mapping[str, Node]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs}

    def channels(self, name: str) -> int:
        """The channels of a tensor that a convolution makes, perhaps in another type; or 0."""
        producers = self.producers
        while (node := producers.get(name)) is not None:
            if node.operator == "Conv":
                name = node.inputs[1]  # the weights, from here on
            elif node.operator in _SAME_CHANNELS:
                name = node.inputs[0]
            else:
                return 0
        found = self.constants.get(name)
        return found.dims[0] if found is not None and found.dims else 0


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file's parts, as views of its bytes.

    Attributes:
        metadata: its texts by key.
        graphs: one, unless the file is forged.
        opsets: the version of each set of operators, by domain.
        version: of the format.
        more: it holds functions or training steps.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    graphs: list[memoryview] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)
    version: int = 0
    more: bool = False


def read_file(data: bytes) -> OnnxFile:
    """The parts of an ONNX file; the graph is not looked into.

    Raises:
        ValueError: it is truncated, or no ONNX file.
    """
    metadata, graphs, opsets = dict[str, str](), list[memoryview](), dict[str, int]()
    version, more, seen = 0, False, set[int]()
    for number, value in fields(memoryview(data), "it"):
        seen.add(number)
        if number == 1:
            version = as_number(value)
        elif number == 7:
            graphs.append(as_bytes(value))
        elif number == 8:
            domain, opset = _pair(value, "a set of operators")
            opsets[text(domain) if domain else ""] = as_number(opset) if opset else 0
        elif number == 14:
            key, entry = _pair(value, "the metadata")
            metadata[text(key) if key else ""] = text(entry) if entry else ""
        more = more or number in (20, 25)
    if not {1, 7} <= seen:
        raise ValueError("it has no graph")
    return OnnxFile(metadata, graphs, opsets, version, more)


def _pair(value: Value, where: str) -> tuple[Value, Value]:
    """Fields 1 and 2 of a message; 0 for one that is missing."""
    found: dict[int, Value] = dict(fields(as_bytes(value), where))
    return found.get(1, 0), found.get(2, 0)


def read_graph(file: OnnxFile) -> Graph:
    """The graph of an ONNX file.

    Raises:
        ValueError: it is damaged, or holds what a runtime could stumble on; with the place.
    """
    if file.version not in _IR_VERSIONS:
        raise ValueError(f"its format has version {file.version}")
    if file.more or len(file.graphs) != 1:
        raise ValueError("it holds more than one graph, which retinart does not write")
    if not file.opsets or not set(file.opsets) <= _NAMED:
        raise ValueError(f"its operators are of {', '.join(file.opsets) or 'an unknown set'}")
    for opset in file.opsets.values():
        if opset not in OPSETS:
            raise ValueError(f"its opset is {opset}, and {OPSETS[0]} to {OPSETS[-1]} are known")
    return _graph(file.graphs[0])


def _check_loop(node: Node, body: Graph, index: int) -> None:
    """Compare what a loop's body takes and gives with what the loop does."""
    given, made = len(node.inputs), 1 + len(node.outputs)
    if (len(body.inputs), len(body.outputs)) != (given, made):
        raise ValueError(
            f"node {index}, a loop, has a body of {len(body.inputs)} inputs and "
            f"{len(body.outputs)} outputs, and needs {given} and {made}"
        )


def _check_turns(node: Node, turns: int | None, index: int) -> None:
    """Refuse a loop that could keep a runtime busy for ever."""
    if turns is None or not 1 <= turns <= _MOST_TURNS:
        raise ValueError(f"node {index}, a loop, has not a constant of 1 to {_MOST_TURNS} turns")


def _graph(view: memoryview, outer: Mapping[str, int | None] = _NOTHING, depth: int = 0) -> Graph:
    graph, nodes = Graph(), []
    for number, value in fields(view, "the graph"):
        if number == 1:
            nodes.append(as_bytes(value))
        elif number == 5:
            name, tensor = _tensor(as_bytes(value))
            if graph.constants.setdefault(name, tensor) is not tensor:
                raise ValueError(f"two constants are called {name!r}")
        elif number == 11:
            name, dims = _value_info(as_bytes(value))
            graph.inputs[name] = dims
        elif number == 12:
            name, dims = _value_info(as_bytes(value))
            graph.outputs[name] = dims
        elif number == 15:
            raise ValueError("it holds sparse constants, which retinart does not write")
    if len(nodes) > _MOST_NODES:
        raise ValueError(f"it has {len(nodes)} nodes")
    known = {**outer, **{name: tensor.value for name, tensor in graph.constants.items()}}
    known.update(dict.fromkeys(graph.inputs))
    for index, one in enumerate(nodes):
        node, bodies = _node(one, index)
        if missing := [name for name in node.inputs if name and name not in known]:
            raise ValueError(f"node {index}, {node.operator}, reads {missing[0]!r}, which no "
                             "earlier node makes")  # fmt: skip
        for name in node.outputs:
            if name in known:
                raise ValueError(f"two nodes make the tensor {name!r}")
            known[name] = None
        if bodies:
            if depth == _DEPTH:
                raise ValueError(f"node {index} is a loop in {_DEPTH} loops")
            _check_turns(node, known.get(node.inputs[0]), index)
            _check_loop(node, _graph(bodies[0], known, depth + 1), index)
        graph.nodes.append(node)
    if depth == 0:
        _check_names(graph.nodes)
    if missing := [name for name in graph.outputs if name not in known]:
        raise ValueError(f"no node makes the output {missing[0]!r}")
    return graph


def _check_names(nodes: Sequence[Node]) -> None:
    """Calibration and conversion tell nodes apart by their names."""
    seen = set[str]()
    for index, node in enumerate(nodes):
        if node.name in seen:
            raise ValueError(f"node {index}, {node.operator}, is called {node.name[:60]!r}, as an "
                             "earlier node")  # fmt: skip
        seen.add(node.name)


def _node(view: memoryview, index: int) -> tuple[Node, list[memoryview]]:
    """A node, and the body of a loop."""
    inputs, outputs, name, operator = [], [], "", ""
    where, attributes = f"node {index}", []
    for number, value in fields(view, where):
        if number == 1:
            inputs.append(text(value))
        elif number == 2:
            outputs.append(text(value))
        elif number == 3:
            name = text(value)
        elif number == 4:
            operator = text(value)
        elif number == 5:
            attributes.append(as_bytes(value))
        elif number == 7 and text(value) not in _NAMED:
            raise ValueError(f"{where} is of the operators {text(value)}, which are not ONNX's")
    where = f"node {index}, {operator} {name[:60]!r}"
    if operator == _LOOP:
        loop, bodies = _loop(tuple(inputs), tuple(outputs), attributes, where)
        return replace(loop, name=name), bodies
    if operator not in OPERATORS:
        raise ValueError(f"{where}: retinart does not write this operator")
    least, most, made = OPERATORS[operator]
    if not least <= len(inputs) <= most or not all(inputs[:least]):
        given = sum(map(bool, inputs))
        raise ValueError(f"{where} has {given} inputs, and needs {least}"
                         + (f" to {most}" if most > least else ""))  # fmt: skip
    if len(outputs) != made or not all(outputs):
        raise ValueError(f"{where} has {sum(map(bool, outputs))} outputs, and needs {made}")
    for attribute in attributes:
        _check_attribute(attribute, where)
    return Node(operator, tuple(inputs), tuple(outputs), name), []


def _loop(
    inputs: tuple[str, ...], outputs: tuple[str, ...], attributes: list[memoryview], where: str
) -> tuple[Node, list[memoryview]]:
    if len(inputs) < 2 or not outputs or not all(inputs[2:]) or not all(outputs):
        raise ValueError(f"{where} lacks an input or an output")
    bodies = [as_bytes(v) for one in attributes for n, v in fields(one, where) if n == 6]
    if len(attributes) != 1 or len(bodies) != 1:
        raise ValueError(f"{where} has not one body")
    return Node(_LOOP, inputs, outputs), bodies


def _check_attribute(view: memoryview, where: str) -> None:
    name, found = "", list[int]()
    for number, value in fields(view, f"an attribute of {where}"):
        if number == 1:
            name = text(value)
        elif number == 3:
            found.append(signed(as_number(value)))
        elif number == 8:
            found += [signed(v) for v in numbers(value)]
        elif number == 5:
            _tensor(as_bytes(value))
        elif number in (6, 10, 11, 21, 22, 23):
            raise ValueError(f"{where} holds a graph or a reference, which retinart does not write")
    least = 1 if name in _ONE_UP else 0 if name in _FROM_0 else -_LARGEST
    if not all(least <= value <= _LARGEST for value in found):
        raise ValueError(f"{where} has the {name} {found[:8]}")


def _tensor(view: memoryview) -> tuple[str, Tensor]:
    """The name and the shape of a constant whose values stand in the file."""
    name, dims, kind, raw, values, one = "", list[int](), 0, -1, 0, None
    for number, value in fields(view, "a constant"):
        if number == 1:
            dims += [signed(v) for v in numbers(value)]
        elif number == 2:
            kind = as_number(value)
        elif number == 8:
            name = text(value)
        elif number == 9:
            raw = len(as_bytes(value))
            one = int.from_bytes(as_bytes(value)[:8], "little", signed=True)
        elif number == 4:
            values += len(value) // 4 if isinstance(value, memoryview) else 1
        elif number == 10:
            values += len(value) // 8 if isinstance(value, memoryview) else 1
        elif number in (5, 7, 11):
            values += count_numbers(value)
        elif number == 13 or (number == 14 and value):
            raise ValueError(f"the values of {name or 'a constant'!r} stand in another file")
    where = f"the constant {name[:60]!r}"
    if kind not in _ITEM_BYTES:
        raise ValueError(f"{where} is of the type {kind}, which retinart does not write")
    count = 1
    for size in dims:
        count *= size
        if size < 0 or count > 1 << 31:
            raise ValueError(f"{where} has the shape {dims[:8]}")
    found = raw if raw >= 0 else values * _ITEM_BYTES[kind]
    if found != count * _ITEM_BYTES[kind] or (raw >= 0 and values):
        raise ValueError(f"{where} has the shape {dims[:8]} and {found} bytes")
    alone = kind == INT64 and raw == 8 and not dims
    return name, Tensor(kind, tuple(dims), one if alone else None)


def _value_info(view: memoryview) -> tuple[str, Dims]:
    """The name and the shape of the graph's input or output, a tensor."""
    name, dims = "", list[int | str]()
    for number, value in fields(view, "an input or output"):
        if number == 1:
            name = text(value)
        elif number == 2:
            for tensor in _all(as_bytes(value), 1):
                for shape in _all(tensor, 2):
                    dims = [_dimension(one) for one in _all(shape, 1)]
    return name, tuple(dims)


def _dimension(view: memoryview) -> int | str:
    found: int | str = ""
    for number, value in fields(view, "a shape"):
        if number == 1:
            found = signed(as_number(value))
        elif number == 2:
            found = text(value)
    return found


def _all(view: memoryview, wanted: int) -> list[memoryview]:
    return [as_bytes(value) for number, value in fields(view, "a type") if number == wanted]
