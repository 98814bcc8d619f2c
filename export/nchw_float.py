"""A form of a model for programs that feed float planes, such as DeepStream's Gst-nvinfer.

Its input is float32 (N, 3, H, W), BGR, with pixel values from 0 to 255. Everything else stays: the
file still holds colours, mean, standard deviation, decoding and NMS. retinart itself does not run
this form, and its readers say so.
"""

from __future__ import annotations

import json
from typing import Any

from retinart.engine.common.packages import import_package
from retinart.engine.model.info import INPUT, NCHW_FLOAT_KEY, ModelInfo

_PACKED = f"{INPUT}/packed"


def nchw_float(data: bytes, info: ModelInfo) -> bytes:
    """The ONNX file of the other form.

    Args:
        data: an ONNX file of retinart with a fixed size.
        info: its metadata.

    Raises:
        MissingDependency: the package onnx is not installed.
    """
    onnx: Any = import_package(
        "onnx",
        package="onnx",
        extra="export",
        purpose="a model with an input of float planes",
        fix="Install it again",
    )
    model = onnx.load_model_from_string(data)
    assert info.resize.canvas is not None, "nvinfer needs a fixed size"
    shape = ["batch", 3, *info.resize.canvas]
    given = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, shape)
    model.graph.input[0].CopyFrom(given)
    for node in model.graph.node:
        node.input[:] = [_PACKED if name == INPUT else name for name in node.input]
    to_packed = onnx.helper.make_node(
        "Transpose", [INPUT], [_PACKED], name=_PACKED, perm=[0, 2, 3, 1]
    )
    model.graph.node.insert(0, to_packed)
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key = NCHW_FLOAT_KEY
    entry.value = json.dumps({"made_of": info.name, "classes": info.classes})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
