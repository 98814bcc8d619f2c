"""What TensorRT asks of a uint8 input: only Casts read it, in every form of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from retinart.calib.fp16 import to_fp16
from retinart.engine.model.info import INPUT, ModelInfo, read_info
from retinart.export.efficient_nms import with_plugin
from retinart.export.nms_plugin import with_nms_plugin

FORMS: dict[str, Callable[[onnx.ModelProto, ModelInfo], onnx.ModelProto]] = {
    "graph": lambda model, info: model,
    "plugin": with_nms_plugin,
    "efficient": with_plugin,
    "fp16": lambda model, info: to_fp16(model, {})[0],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["model_path", "dynamic_model_path", "int8_path"])
def test_only_casts_read_the_input(name: str, form: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    model = FORMS[form](onnx.load(path), read_info(path))
    (frames,) = model.graph.input
    assert frames.name == INPUT and frames.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [n.op_type for n in model.graph.node if INPUT in n.input] == ["Cast"]
