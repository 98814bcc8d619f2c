"""Writing ONNX files: metadata, the same bytes again, and graphs with other nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from retinart.engine.errors import BadInput
from retinart.engine.model.info import read_info
from retinart.engine.model.onnx_file import check_onnx_output, with_graph, write_onnx


def a_model() -> onnx.ModelProto:
    """y = (x + a) + b, with a constant c that no node reads."""
    constants = [numpy_helper.from_array(np.ones(1, np.float32), name) for name in "abc"]
    nodes = [
        helper.make_node("Add", ["x", "a"], ["s"], name="first"),
        helper.make_node("Add", ["s", "b"], ["y"], name="second"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], constants))


def test_what_is_written_is_read_again(model_path: Path, tmp_path: Path) -> None:
    info, model = read_info(model_path), onnx.load(model_path)
    helper.set_model_props(model, {"someone": "else's"})
    for name in ("a.onnx", "b.onnx"):
        write_onnx(model, info, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert read_info(tmp_path / "a.onnx") == info
    assert len(onnx.load(tmp_path / "a.onnx").metadata_props) == 1


def test_a_name_without_onnx() -> None:
    check_onnx_output(Path("m.onnx"), "model.onnx")
    assert not Path("m.onnx").exists()
    with pytest.raises(BadInput, match=r"m\.engine does not end in \.onnx\. Name it model\.onnx"):
        check_onnx_output(Path("m.engine"), "model.onnx")


def test_other_nodes_read_other_constants() -> None:
    model = a_model()
    before = model.SerializeToString(deterministic=True)
    again = numpy_helper.from_array(np.zeros(1, np.float32), "b")
    result = with_graph(
        model,
        [*model.graph.node, helper.make_node("Relu", ["y"], ["z"], name="third")],
        [*model.graph.initializer, again],
        {("first", 0): "b", ("first", 1): "x"},
    )
    assert model.SerializeToString(deterministic=True) == before
    assert [list(n.input) for n in result.graph.node] == [["b", "x"], ["s", "b"], ["y"]]
    (constant,) = result.graph.initializer  # no node reads a or c
    assert constant.name == "b" and numpy_helper.to_array(constant) == [1]


def test_constants_that_a_loop_reads_stay() -> None:
    model = a_model()
    (inner,) = (a_model().graph for _ in range(1))
    loop = helper.make_node("Loop", ["c"], ["z"], name="loop", body=inner)
    result = with_graph(model, [loop], model.graph.initializer)
    assert sorted(i.name for i in result.graph.initializer) == ["a", "b", "c"]
