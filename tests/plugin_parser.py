"""TensorRT-RTX's parser, asked in a process of its own what it hands to a plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinart.engine.tensorrt.api import installed

_PARSE = """
import json, os, sys
import numpy as np
import tensorrt_rtx as trt

path, plugin, space, fields = sys.argv[1:]

class Log(trt.ILogger):
    def __init__(self):
        super().__init__()
    def log(self, severity, msg):
        pass

class Creator(trt.IPluginCreatorV3One):
    def __init__(self):
        super().__init__()
        self.name, self.plugin_version, self.plugin_namespace = plugin, "1", space
        types = {"float": trt.PluginFieldType.FLOAT32, "int": trt.PluginFieldType.INT32}
        self.field_names = trt.PluginFieldCollection([
            trt.PluginField(name, np.array([]), types[kind])
            for name, kind in json.loads(fields).items()])
    def create_plugin(self, name, fields, phase):
        print(json.dumps({f.name: [f.type.name, np.asarray(f.data).tolist()] for f in fields}))
        sys.stdout.flush()
        os._exit(0)  # TensorRT-RTX has no such plugins and would not go on from here

creator = Creator()
trt.get_plugin_registry().register_creator(creator, space)
log = Log()
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
parser.parse(open(path, "rb").read())
print([parser.get_error(i).desc() for i in range(parser.num_errors)])
"""


def check_attributes(path: Path, plugin: str, space: str, attributes: dict[str, Any]) -> None:
    """See that the parser finds a plugin of that name and space, and gives it these values.

    Args:
        path: the ONNX file.
        attributes: each a float, which comes in float32, or an int.
    """
    if not installed("tensorrt-rtx"):
        pytest.skip("TensorRT-RTX is not installed")
    fields = json.dumps({name: type(value).__name__ for name, value in attributes.items()})
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, path, plugin, space, fields],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.startswith("{"), done
    given = json.loads(done.stdout)
    for kind, values in given.values():
        if kind == "FLOAT32":
            values[0] = float(np.float32(values[0]))
    assert given == {
        name: ["FLOAT32", [float(np.float32(value))]]
        if isinstance(value, float)
        else ["INT32", [value]]
        for name, value in attributes.items()
    }
