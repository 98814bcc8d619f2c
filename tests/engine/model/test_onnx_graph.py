"""The door for model files: no graph that a runtime could stumble on, and none that is described
wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from retinart.engine.errors import BadInput
from retinart.engine.model.info import METADATA_KEY, ModelInfo, read_info, read_model
from retinart.engine.model.onnx_bytes import graph_sha256
from retinart.engine.model.onnx_graph import read_file, read_graph
from retinart.engine.model.protobuf import count_numbers, numbers
from support import made_graph, made_info

Proto = Any  # an onnx.ModelProto, whose fields mypy knows little about


def _read(model: Proto) -> None:
    read_graph(read_file(model.SerializeToString()))


def _node(model: Proto, operator: str) -> Any:
    return next(node for node in model.graph.node if node.op_type == operator)


def _add(model: Proto, operator: str, inputs: list[str], outputs: list[str], **more: Any) -> None:
    more = {"name": outputs[0], **more}
    model.graph.node.append(onnx.helper.make_node(operator, inputs, outputs, **more))


def _branch(model: Proto) -> None:
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    inner = onnx.helper.make_graph([], "inner", [], [value])
    _add(model, "Relu", ["normalized"], ["new"], body=inner)


def _loop(
    model: Proto, *, inputs: int = 3, deep: int = 1, made: str = "", turns: int | None = 64
) -> None:
    """A loop that carries a tensor, with loops in it."""
    if turns is not None:
        constant = onnx.numpy_helper.from_array(np.array(turns, np.int64), "turns")
        model.graph.initializer.append(constant)
    body, most = None, "" if turns is None else "turns"
    for level in range(deep):
        names = [f"{name}{level}" for name in ("number", "go", "before")][:inputs]
        values = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in names]
        nodes = [onnx.helper.make_node("Relu", [names[1]], [made or f"after{level}"])]
        if body is not None:
            nodes.append(_looping([most, "", names[1]], f"inner{level}", body))
        ends = [values[1], onnx.helper.make_tensor_value_info(nodes[0].output[0], 1, [1])]
        body = onnx.helper.make_graph(nodes, f"body{level}", values, ends)
    model.graph.node.append(_looping([most, "", "normalized"], "looped", body))


def _looping(inputs: list[str], output: str, body: Any) -> Any:
    return onnx.helper.make_node("Loop", inputs, [output], name=output, body=body)


def _constant(model: Proto, **changes: Any) -> None:
    for name, value in changes.items():
        constant = model.graph.initializer[0]
        if name == "dims":
            del constant.dims[:]
            constant.dims.extend(value)
        else:
            setattr(constant, name, value)


def _external(model: Proto) -> None:
    constant = model.graph.initializer[0]
    constant.ClearField("raw_data")
    entry = constant.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    constant.data_location = 1


DAMAGE: dict[str, tuple[Callable[[Proto], Any], str]] = {
    "no inputs": (lambda m: _node(m, "Conv").ClearField("input"), "has 0 inputs, and needs 2 to 3"),
    "an empty input": (lambda m: _node(m, "Relu").input.__setitem__(0, ""), "has 0 inputs, and"),
    "too many inputs": (lambda m: _node(m, "Relu").input.append("normalized"), "has 2 inputs"),
    "no outputs": (lambda m: _node(m, "Relu").ClearField("output"), "has 0 outputs"),
    "two outputs": (lambda m: _node(m, "Relu").output.append("z"), "has 2 outputs, and needs 1"),
    "one name twice": (lambda m: _add(m, "Relu", ["frames"], ["normalized"]), "two nodes make"),
    "one name of two nodes": (
        lambda m: _add(m, "Relu", ["frames"], ["z"], name=m.graph.node[0].name), "as an earlier"
    ),
    "its own input": (lambda m: _add(m, "Relu", ["new"], ["new"]), "which no earlier node makes"),
    "a later input": (lambda m: m.graph.node.insert(0, m.graph.node.pop()), "no earlier node"),
    "an unknown operator": (lambda m: _add(m, "Scan", ["frames"], ["z"]), "does not write this"),
    "another domain": (lambda m: _add(m, "Relu", ["frames"], ["z"], domain="x"), "the operators x"),
    "a branch": (_branch, "holds a graph or a reference"),
    "a loop without a body": (lambda m: _add(m, "Loop", ["", ""], ["z"]), "has not one body"),
    "a loop of another size": (lambda m: _loop(m, inputs=2), "has a body of 2 inputs"),
    "a loop in loops": (lambda m: _loop(m, deep=3), "is a loop in 2 loops"),
    "a loop without an end": (lambda m: _loop(m, turns=None), "has not a constant of 1 to 512"),
    "a loop of many turns": (lambda m: _loop(m, turns=1 << 40), "has not a constant of 1 to 512"),
    "a loop over a name": (lambda m: _loop(m, made="normalized"), "two nodes make"),
    "no groups": (
        lambda m: _node(m, "Conv").attribute.append(onnx.helper.make_attribute("group", 0)),
        r"has the group \[0\]",
    ),
    "a stride of 0": (
        lambda m: _node(m, "Conv").attribute.append(onnx.helper.make_attribute("strides", [1, 0])),
        r"has the strides \[1, 0\]",
    ),
    "other files": (_external, "stand in another file"),
    "a shape without values": (lambda m: _constant(m, dims=[1 << 20, 1 << 10]), "and 324 bytes"),
    "a negative shape": (lambda m: _constant(m, dims=[-1]), r"has the shape \[-1\]"),
    "a huge shape": (lambda m: _constant(m, dims=[1 << 40, 1 << 40]), "has the shape"),
    "text": (lambda m: _constant(m, data_type=8), "is of the type 8"),
    "values twice": (lambda m: m.graph.initializer[0].float_data.append(1), "bytes"),
    "two constants": (
        lambda m: m.graph.initializer.append(m.graph.initializer[0]), "two constants are called"
    ),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "sparse constants"),
    "a function": (lambda m: m.functions.add(), "more than one graph"),
    "an old opset": (lambda m: setattr(m.opset_import[0], "version", 7), "its opset is 7"),
    "a far opset": (lambda m: setattr(m.opset_import[0], "version", 2**40), "its opset is"),
    "no opset": (lambda m: m.ClearField("opset_import"), "an unknown set"),
    "another set": (lambda m: setattr(m.opset_import[0], "domain", "x"), "operators are of x"),
    "version 0": (lambda m: setattr(m, "ir_version", 0), "format has version 0"),
    "an output from nowhere": (
        lambda m: setattr(m.graph.output[0], "name", "x"), "no node makes the output 'x'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_graphs_that_a_runtime_could_stumble_on(name: str) -> None:
    change, message = DAMAGE[name]
    model = made_graph()
    _read(model)
    change(model)
    with pytest.raises(ValueError, match=message):
        _read(model)


def test_loops_pass() -> None:
    model = made_graph()
    _loop(model, deep=2)
    _read(model)


def test_two_graphs_are_refused() -> None:
    data = made_graph().SerializeToString()
    with pytest.raises(ValueError, match="more than one graph"):
        read_graph(read_file(data + data))


def _written(path: Path, model: Proto, info: ModelInfo | dict[str, Any]) -> Path:
    text = json.dumps(info) if isinstance(info, dict) else info.to_json()
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"canvas": (608, 640)}, r"input is \(608, 640\), and its metadata say \(608, 800\)"),
        ({"canvas": ("height", "width")}, "and its metadata say"),
        ({"classes": 4}, "its logits have 36 channels, and 9 anchors with 3 each need 27"),
        ({"most": 99}, "its metadata say 100"),
    ],
)
def test_metadata_that_do_not_fit_the_graph(
    graph: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert read_info(_written(tmp_path / "a.onnx", made_graph(), made_info())) == made_info()
    path = _written(tmp_path / "b.onnx", made_graph(**graph), made_info())
    with pytest.raises(BadInput, match=message) as raised:
        read_info(path)
    assert str(path) in raised.value.what


@pytest.mark.parametrize(
    ("kind", "fits"), [("FP16", ("fp16", "int8+fp16")), ("INT8", ("int8", "int8+fp16"))]
)
def test_the_precision_fits_the_graph(kind: str, fits: tuple[str, ...], tmp_path: Path) -> None:
    model = made_graph()
    scale = np.ones(1, np.float16 if kind == "FP16" else np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(scale, "scale"))
    if kind == "INT8":
        _add(model, "QuantizeLinear", ["normalized", "scale"], ["quantized"])
    for precision in ("fp32", "fp16", "int8", "int8+fp16"):
        path = _written(tmp_path / "a.onnx", model, made_info(precision=precision))
        if precision in fits:
            assert read_info(path).precision == precision
            continue
        with pytest.raises(BadInput, match=f"it has layers in {kind}, and its metadata say"):
            read_info(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(classes=[0, 1, 2]), r"classes\[0\] has to be text"),
        (lambda d: d.update(classes=["\ud800", "b", "c"]), "surrogate pair"),
        (lambda d: d.update(precision=5), "precision has to be one of"),
        (lambda d: d.update(provenance="x"), "provenance has to be an object"),
        (lambda d: d.update(provenance={"a": float("nan")}), "not a finite number"),
        (lambda d: d["provenance"].update(a=json.loads("[" * 99 + "]" * 99)), "nested more than"),
        (lambda d: d["resize"].update(canvas=[100_000, 100_000]), "not all from 1 to"),
        (lambda d: d["resize"].update(pad_multiple=0), "not all from 1 to"),
        (lambda d: d["resize"].update(pad_multiple=2.5), "a whole number"),
        (lambda d: d["resize"].update(pad_value=[0, 0, 256]), "padding's colour"),
        (lambda d: d["resize"].update(pad_value=[0, 0]), "a list of 3"),
        (lambda d: d.update(min_size=[0, 800]), "its sizes are"),
        (lambda d: d.update(min_size=[800, 608]), "its sizes are|its canvas is"),
        (lambda d: d["thresholds"].update(score_thresh=True), "has to be a number"),
        (lambda d: d["thresholds"].update(score_thresh=2), "score_thresh` is 2"),
        (lambda d: d["thresholds"].update(detections_per_img=10**30), "more than 64 bits"),
        (lambda d: d["variant"].update(anchor_sizes=[[1]]), "anchors at a position|five tuples"),
        (lambda d: d["variant"].update(std=[1, 1, 0]), "std"),
        (lambda d: d["variant"].update(box_clamp=1e300), "box_clamp"),
        (lambda d: d.update(probe={"rule": 1}), "probe.seed is missing"),
    ],
)
def test_every_field_is_checked_when_it_is_read(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    data = json.loads(made_info().to_json())
    change(data)
    path = _written(tmp_path / "a.onnx", made_graph(), data)
    with pytest.raises(BadInput, match=message) as raised:
        read_info(path)
    assert str(path) in raised.value.what


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": 2}, "follows rule 2"),
        ({"seed": -1}, "seed or hash"),
        ({"graph_sha256": "x"}, "seed or hash"),
        ({"size": [60_000, 60_000]}, "picture has the size"),
        ({"raw": {"logits_p3": [0.0] * 32}}, "probe is of logits_p3"),
        ({"candidates": [[0, 0, 1, 1, 0.5, 99]]}, "a class that has no name"),
        ({"detections": [[0, 0, 1, 1, 0.5]]}, "has 5 values"),
        ({"rounding": 1e308}, "NaN, infinite or huge"),
    ],
)
def test_the_probe_is_checked_when_it_is_read(
    change: dict[str, Any], message: str, model_path: Path
) -> None:
    data = json.loads(read_info(model_path).to_json())
    data["probe"].update(change)
    with pytest.raises(BadInput, match=message):
        ModelInfo.from_json(json.dumps(data), "m.onnx")


def test_flipped_weights_are_noticed_by_the_steps_that_pass_them_on(
    model_path: Path, tmp_path: Path
) -> None:
    data = bytearray(model_path.read_bytes())
    info, same = read_model(model_path)
    assert same == data and info.probe is not None
    assert graph_sha256(same) == info.probe.graph_sha256
    data[data.index(b"backbone.conv1.weight") + 2000] ^= 1
    path = tmp_path / "flipped.onnx"
    path.write_bytes(data)
    assert read_info(path) == info
    with pytest.raises(BadInput, match=r"flipped\.onnx has changed since it was written"):
        read_model(path)


def test_any_flipped_byte_is_refused_or_harmless(model_path: Path, tmp_path: Path) -> None:
    """Whatever the byte, the error is one of ours."""
    data, rng = model_path.read_bytes(), np.random.default_rng(5)
    path = tmp_path / "flipped.onnx"
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        for index in rng.integers(0, len(data), 3):
            damaged[index] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_model(path)
        except BadInput as error:
            refused += str(path) in str(error)
    assert refused == 60


def test_devices_are_not_read() -> None:
    with pytest.raises(BadInput, match=r"cannot read the model /dev/zero: it is a device"):
        read_info("/dev/zero")


def test_lists_of_numbers_take_no_more_memory_than_they_need() -> None:
    assert count_numbers(memoryview(b"\x80\x01\x05")) == len(numbers(memoryview(b"\x80\x01\x05")))
    with pytest.raises(ValueError, match="a list of 70,000 bytes is not one of dimensions"):
        numbers(memoryview(bytes(70_000)))
