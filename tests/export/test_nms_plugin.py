"""retinart's NMS plugin gives what the file's own NMS gives, on outputs of whole models.

No plugin runs here: the kernel's own source runs on the CPU, on what the plugin's node would get.
The registration is tried on the real code of `tensorrt.plugin`, and the node on the parser of
TensorRT-RTX.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper

from golden_forms import OF_VARIANT
from nms_kernel import NmsKernel
from plugin_parser import check_attributes
from retinart.engine.media.images import Image, list_images, read_image
from retinart.engine.model.info import INPUT, OUTPUTS, read_info
from retinart.export.nms_plugin import ATTRIBUTES, PLUGIN, plugin_attributes, with_nms_plugin
from support import ROOT, Once, make_picture

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def kernel(once: Once) -> NmsKernel:
    return NmsKernel(once)


def plugin_node(model: onnx.ModelProto) -> tuple[onnx.NodeProto, dict[str, Any]]:
    """The plugin's node and its own attributes."""
    (node,) = (node for node in model.graph.node if node.op_type == PLUGIN)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert attributes.pop("plugin_version") == b"1"
    assert attributes.pop("plugin_namespace") == b"retinart"
    return node, attributes


def compare(kernel: NmsKernel, path: Path, frames: Image) -> int:
    """See that the kernel gives the file's outputs to the bit; returns the number of detections.

    One session computes both the file's outputs and what the plugin's node gets.
    """
    model, info = onnx.load(path), read_info(path)
    changed = with_nms_plugin(model, info)
    onnx.checker.check_model(changed)
    node, attributes = plugin_node(changed)
    assert attributes.keys() == ATTRIBUTES.keys()
    before = {n.name for n in model.graph.node}
    known = {t.name for t in model.graph.initializer}
    model.graph.node.extend(
        n for n in changed.graph.node if n.name not in before and not {*n.input} & {*node.output}
        and n.op_type != PLUGIN
    )  # fmt: skip
    model.graph.initializer.extend(t for t in changed.graph.initializer if t.name not in known)
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in node.input)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    *want, boxes, scores, limits = session.run([*OUTPUTS, *node.input], {INPUT: frames})
    got = kernel(boxes, scores, limits, attributes)
    for a, b in zip(want, got, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    return int(np.sum(got[0]))


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize(
    ("plus_one", "clip_first"),
    [(False, True), (False, False), (True, False)],
    ids=["plain", "clip-after", "plus-one"],
)
def test_random_weights(
    plus_one: bool, clip_first: bool, dynamic: bool, changed_path: Callable[..., Path],
    kernel: NmsKernel,
) -> None:  # fmt: skip
    path = changed_path(dynamic=dynamic, box_plus_one=plus_one, clip_before_nms=clip_first)
    assert compare(kernel, path, np.stack([make_picture(seed) for seed in range(4)])) > 100


def test_the_shipped_model(
    tiny_path: Path, scenes: Path, shared: Callable[..., Path], kernel: NmsKernel
) -> None:
    """Six scenes like those it was trained on, and six pictures of blood cells."""
    cells = list_images(str(shared("data", "bccd", "images")))[:6]
    paths = [*list_images(str(scenes / "images"))[:6], *cells]
    frames, _ = read_info(tiny_path).resize.apply(list(map(read_image, paths)))
    assert compare(kernel, tiny_path, frames) > 100


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if number else [])  # each takes its export
        for number, name in enumerate(OF_VARIANT.values())
    ],
)
def test_public_models(
    name: str, public_model: Callable[[str], Path], shared: Callable[..., Path],
    kernel: NmsKernel,
) -> None:  # fmt: skip
    path = public_model(name)
    paths = list_images(str(shared("data", "coco_val206", "images")))[:1]
    images = [read_image(shared("golden", "input.png")), *map(read_image, paths)]
    frames, _ = read_info(path).resize.apply(images)
    assert compare(kernel, path, frames) > 20


# The real Python code of TensorRT's plugins, with doubles of the classes that its libraries fill:
# symbolic sizes, and where a plugin puts its launch.
REGISTER = """
import json, sys
import numpy as np
import tensorrt_bindings as trt

class Expr:
    def __init__(self, value):
        self.value = value
    def is_constant(self):
        return True

class Expressions:
    def constant(self, value):
        assert type(value) is int
        return Expr(value)
    def operation(self, operation, a, b):
        return Expr({"SUM": a.value + b.value}[operation.name])

class Dims(list):
    def __init__(self, length):
        super().__init__([None] * length)

class Registry:
    def __init__(self):
        self.creators = {}
    def register_creator(self, creator, namespace):
        self.creators[creator.name, creator.plugin_version, namespace] = creator
    def get_creator(self, name, version, namespace):
        return self.creators.get((name, version, namespace))

class Bag(dict):
    pass

registry = Registry()
trt.get_plugin_registry = lambda: registry
trt.IDimensionExpr, trt.DimsExprs, trt.ISymExpr = Expr, Dims, type("ISymExpr", (), {})
sys.modules["tensorrt"] = trt
from retinart.export import nms_plugin

assert nms_plugin.has_aot_plugins(trt)
nms_plugin.register(trt)
nms_plugin.register(trt)  # once is enough
creator = registry.get_creator("RetinaNetNMS", "1", "retinart")
kinds = {f.name: f.type for f in creator.field_names}
types = {trt.PluginFieldType.FLOAT32: np.float32, trt.PluginFieldType.INT32: np.int32}
given = json.loads(sys.argv[1])
values = {n: np.array([v], types[kinds[n]]) for n, v in given.items()}  # a field points at them
fields = trt.PluginFieldCollection([trt.PluginField(n, v, kinds[n]) for n, v in values.items()])
plugin = creator.create_plugin("RetinaNetNMS", "retinart", fields, trt.TensorRTPhase.BUILD,
                               trt.QuickPluginCreationRequest.PREFER_AOT)
real, whole = trt.DataType.FLOAT, trt.DataType.INT32
kinds = plugin.get_output_data_types([real] * 3, [3, 3, 1])
sizes = [[2, 700, 4], [2, 700, 91], [4]]
inputs = [list(map(Expr, size)) for size in sizes]
shapes = [[e.value for e in d] for d in plugin.get_output_shapes(inputs, [], Expressions())]

def described(size, kind):
    desc = trt.DynamicPluginTensorDesc()
    desc.desc.type, desc.desc.dims, desc.desc.format = kind, size, trt.TensorFormat.LINEAR
    return desc

tensors = [*(described(s, real) for s in sizes), *map(described, shapes, kinds)]
plugin.get_supported_format_combinations(tensors, 3)
plugin.set_tactic(0)
launch, numbers = Bag(), Bag()
plugin.get_launch_params(inputs, tensors, 3, launch, numbers, Expressions())
name, ptx = plugin.get_kernel([t.desc for t in tensors[:3]], [t.desc for t in tensors[3:]])
print(json.dumps({
    "kinds": [k.name for k in kinds], "shapes": shapes, "name": name, "ptx": ptx.decode(),
    "launch": {k: v.expr.value for k, v in vars(launch).items()},
    "numbers": [numbers[i].expr.value for i in range(numbers.nbSymExprs)],
    "number_types": sorted({numbers[i].dtype.name for i in range(numbers.nbSymExprs)})}))
"""


@pytest.mark.parametrize("version", ["10.9.0.34", "10.16.1.11", "11.4.0.106"])
def test_tensorrts_own_code_takes_the_registration(version: str) -> None:
    folder = ROOT / "build" / "bindings" / version
    if not (folder / ".done").exists():
        pytest.skip(f"TensorRT's bindings {version} are not here: `make bindings` gets them")
    attributes = {
        "score_threshold": 0.05, "iou_threshold": 0.5, "max_pairs": 2000, "max_detections": 300,
        "plus_one": 1,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", REGISTER, json.dumps(attributes)],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["kinds"] == ["INT32", "FLOAT", "FLOAT", "INT32"]
    assert said["shapes"] == [[2, 1], [2, 300, 4], [2, 300], [2, 300]]
    ones = dict.fromkeys(("grid_y", "grid_z", "block_y", "block_z"), 1)
    assert said["launch"] == {"grid_x": 2, "block_x": 1024, "shared_mem": 0, **ones}
    bits = [int(np.float32(v).view(np.int32)) for v in (0.05, 0.5)]
    assert said["numbers"] == [700, 91, 2000, 300, *bits, 1] and said["number_types"] == ["INT32"]
    # inputs, whole numbers and outputs are the kernel's parameters
    entry = said["ptx"].split(f".entry {said['name']}(")[1].split(")")[0]
    assert [p.split()[1] for p in entry.split(",")] == [".u64"] * 3 + [".u32"] * 7 + [".u64"] * 4


def test_the_parser_hands_the_attributes_to_the_plugin(model_path: Path, tmp_path: Path) -> None:
    """TensorRT-RTX's parser finds our plugin and gives it our values."""
    info, path = read_info(model_path), tmp_path / "plugin.onnx"
    onnx.save(with_nms_plugin(onnx.load(model_path), info), path)
    check_attributes(path, PLUGIN, "retinart", plugin_attributes(info))
