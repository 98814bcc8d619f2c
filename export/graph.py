"""A small writer of ONNX graphs. A value is a name, and every node has a name for people."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 19  # the first whose Q/DQ takes FP16; TensorRT 10 and 11 read it
IR_VERSION = 9


class GraphBuilder:
    """Collects nodes and constants; `scope` prefixes names until it is changed."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.scope = ""
        self._constants: dict[str, onnx.TensorProto] = {}
        self._used: dict[str, int] = {}

    def op(self, op_type: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return that output's name."""
        name = self._unique(name or f"{self.scope}{op_type}")
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def ops(self, op_type: str, *inputs: str, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node with several outputs, and return their names."""
        name = self._unique(f"{self.scope}{op_type}")
        names = tuple(f"{name}.{i}" for i in range(outputs))
        self.nodes.append(helper.make_node(op_type, inputs, names, name=name, **attributes))
        return names

    def loop(
        self,
        most: str,
        start: str,
        state: str,
        body: Callable[[str, str], tuple[str, str]],
        *,
        shape: Sequence[int | str],
        name: str,
    ) -> str:
        """Add a Loop that carries one float32 value, and return that value after the last turn.

        Args:
            most: int64 scalar, turns at most.
            start: bool scalar, whether there is a first turn.
            state: the value at the beginning.
            body: adds one turn's nodes. Takes the turn's number and the value, and returns whether
                there is another turn and the new value. It may read values from outside.
            shape: of the value.
        """
        name = self._unique(name)
        number, go, before = (f"{name}/{part}" for part in ("number", "go", "before"))
        outside, self.nodes = self.nodes, []
        more, after = body(number, before)
        inside, self.nodes = self.nodes, outside
        graph = helper.make_graph(
            inside,
            name,
            [
                helper.make_tensor_value_info(number, INT64, []),
                helper.make_tensor_value_info(go, BOOL, []),
                helper.make_tensor_value_info(before, FLOAT, shape),
            ],
            [
                helper.make_tensor_value_info(more, BOOL, []),
                helper.make_tensor_value_info(after, FLOAT, shape),
            ],
        )
        self.nodes.append(helper.make_node("Loop", [most, start, state], [name], name, body=graph))
        return name

    def rename(self, value: str, name: str) -> str:
        """Give a value a public name through an Identity node's output."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"{name}/out"))
        return name

    def const(self, value: npt.ArrayLike, dtype: npt.DTypeLike, name: str = "") -> str:
        """Add a constant. Unnamed constants of equal content are stored once."""
        array = np.array(value, dtype, order="C")
        if not name:
            label = "_".join(str(v) for v in array.ravel()) if array.size <= 4 else "table"
            kind = array.dtype.name + "x".join(str(s) for s in array.shape)
            name = f"const/{kind}/{label}"
            if label == "table":
                name = f"{name}/{zlib.crc32(array.tobytes()):08x}"
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.const(values, np.int64)

    def scalar(self, value: float) -> str:
        """A constant float32 scalar."""
        return self.const(value, np.float32)

    def reshape(self, value: str, *shape: int) -> str:
        """Reshape; 0 copies a dimension and -1 infers one."""
        return self.op("Reshape", value, self.ints(*shape))

    @property
    def initializers(self) -> list[onnx.TensorProto]:
        """The constants so far."""
        return list(self._constants.values())

    def model(
        self,
        *,
        inputs: Sequence[tuple[str, int, Sequence[int | str]]],
        outputs: Sequence[tuple[str, int, Sequence[int | str]]],
        name: str,
        producer_version: str,
    ) -> onnx.ModelProto:
        """The finished model; inputs and outputs are (name, TensorProto type, shape)."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(*i) for i in inputs],
            [helper.make_tensor_value_info(*o) for o in outputs],
            initializer=self.initializers,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="retinart",
            producer_version=producer_version,
        )

    def _unique(self, name: str) -> str:
        count = self._used.get(name, 0)
        self._used[name] = count + 1
        return name if count == 0 else f"{name}_{count}"


FLOAT, UINT8, BOOL = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.BOOL
INT32, INT64 = TensorProto.INT32, TensorProto.INT64
