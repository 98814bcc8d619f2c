"""Bundles for DeepStream: both configurations beside the graphs, the planes' form, the parser."""

from __future__ import annotations

import configparser
import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from fake_builder import FakeBuilder
from retinart.engine.model.info import INPUT, OUTPUTS, read_info
from retinart.export.build import build_engine
from retinart.export.bundle import deepstream
from retinart.export.bundle.bundle import make_bundle
from retinart.export.bundle.deepstream import nvinferserver_config
from retinart.export.bundle.pbtxt import pbtxt
from retinart.export.bundle.settings import BundleSettings
from retinart.export.settings import BuildSettings
from support import files_below, graph_tensors, make_picture

Command = Callable[..., CompletedProcess[str]]
PICTURES = 20
HERE = Path(__file__).parent / "deepstream"

# Fields of nvinferserver's configuration that are used, as NVIDIA's documentation lists them.
FIELDS: dict[str, dict[str, str]] = {
    "Config": {"infer_config": "Infer", "input_control": "Control"},
    "Infer": {
        "unique_id": "int32", "gpu_ids": "int32*", "max_batch_size": "int32", "backend": "Backend",
        "preprocess": "Preprocess", "postprocess": "Postprocess", "custom_lib": "Library",
    },
    "Backend": {"inputs": "Layer*", "outputs": "Layer*", "triton": "Triton"},
    "Layer": {"name": "string", "dims": "int32*", "data_type": "DataType"},
    "Triton": {"model_name": "string", "version": "int32", "model_repo": "Repository"},
    "Repository": {"root": "string", "strict_model_config": "bool"},
    "Preprocess": {
        "network_format": "Format", "tensor_order": "Order", "tensor_name": "string",
        "maintain_aspect_ratio": "int32", "symmetric_padding": "int32", "normalize": "Normalize",
    },
    "Normalize": {"scale_factor": "float", "channel_offsets": "float*"},
    "Postprocess": {"labelfile_path": "string", "detection": "Detection"},
    "Detection": {
        "num_detected_classes": "int32", "custom_parse_bbox_func": "string",
        "simple_cluster": "Cluster",
    },
    "Cluster": {"threshold": "float"},
    "Library": {"path": "string"},
    "Control": {"process_mode": "Mode", "interval": "int32"},
}  # fmt: skip
ENUMS = {
    "DataType": ["TENSOR_DT_NONE", "TENSOR_DT_FP32", "TENSOR_DT_UINT8"],
    "Format": ["MEDIA_FORMAT_NONE", "IMAGE_FORMAT_RGB", "IMAGE_FORMAT_BGR"],
    "Order": ["TENSOR_ORDER_NONE", "TENSOR_ORDER_LINEAR", "TENSOR_ORDER_NHWC"],
    "Mode": ["PROCESS_MODE_DEFAULT", "PROCESS_MODE_FULL_FRAME"],
}


@pytest.fixture(scope="module")
def parsed() -> Callable[[str], Any]:
    """Reads nvinferserver's configuration with protobuf; an unknown field or name fails."""
    pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    pool = pytest.importorskip("google.protobuf.descriptor_pool").DescriptorPool()
    message_factory = pytest.importorskip("google.protobuf.message_factory")
    text_format = pytest.importorskip("google.protobuf.text_format")
    file = pb2.FileDescriptorProto(name="nvinferserver.proto", package="x", syntax="proto3")
    for enum, names in ENUMS.items():
        values = [{"name": name, "number": number} for number, name in enumerate(names)]
        file.enum_type.add(name=enum, value=[pb2.EnumValueDescriptorProto(**v) for v in values])
    kinds = pb2.FieldDescriptorProto
    for message, fields in FIELDS.items():
        into = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            plain, label = kind.removesuffix("*"), kind.endswith("*")
            field = into.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_REPEATED if label else kinds.LABEL_OPTIONAL,
            )
            if plain[0].islower():
                field.type = getattr(kinds, f"TYPE_{plain.upper()}")
            else:
                field.type = kinds.TYPE_ENUM if plain in ENUMS else kinds.TYPE_MESSAGE
                field.type_name = f".x.{plain}"
    pool.Add(file)
    factory = message_factory.GetMessageClass(pool.FindMessageTypeByName("x.Config"))
    return lambda text: text_format.Parse(text, factory())


def of_nvinferserver(config: Any) -> tuple[str, str, list[int], list[str]]:
    """Name, type and shape of the input, and the outputs' names."""
    (frames,) = config.infer_config.backend.inputs
    kind = ENUMS["DataType"][frames.data_type].rpartition("_")[2]
    outputs = [output.name for output in config.infer_config.backend.outputs]
    return frames.name, kind, [-1, *frames.dims], outputs


def of_graph(path: Path) -> tuple[str, str, list[int], list[str]]:
    (name, (kind, dims)), *outputs = graph_tensors(path).items()
    return name, kind, dims, [output for output, _ in outputs]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_nvinfer(precision: str, model_path: Path, int8_path: Path, tmp_path: Path) -> None:
    """The planes' form gives exactly what the file gives; the configuration describes it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_path if precision == "fp32" else int8_path
    settings = BundleSettings(server="deepstream", max_batch=4)
    folder = make_bundle(model, [], tmp_path / "new", settings).path
    assert files_below(folder) == [
        "deepstream_parser.cpp", "labels.txt", "model.onnx", "nvinfer.txt",
    ]  # fmt: skip
    file = configparser.ConfigParser()
    file.read(folder / "nvinfer.txt")
    config, info = file["property"], read_info(model)
    dims = [int(side) for side in config["infer-dims"].split(";")]
    before, after = graph_tensors(model), graph_tensors(folder / config["onnx-file"])
    assert after == {**before, INPUT: ("FLOAT", [-1, *dims])} and dims == [3, 96, 128]
    assert config["network-mode"] == {"fp32": "0", "int8": "1"}[precision]
    labels = (folder / config["labelfile-path"]).read_text().splitlines()
    assert labels == list(info.classes) and config["num-detected-classes"] == str(len(labels))
    assert float(file["class-attrs-all"]["pre-cluster-threshold"]) == info.thresholds.score_thresh
    assert config["parse-bbox-func-name"] in (folder / "deepstream_parser.cpp").read_text()
    frames = np.stack([make_picture(seed) for seed in range(PICTURES)])
    scale, offsets = float(config["net-scale-factor"]), config["offsets"].split(";")
    assert config["model-color-format"] == "1" and config["network-input-order"] == "0"
    planes = scale * (frames.astype(np.float32) - np.array(offsets, np.float32))
    feeds = (frames, np.ascontiguousarray(planes.transpose(0, 3, 1, 2)))
    found = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
            OUTPUTS, {INPUT: feed}
        )
        for path, feed in zip((model, folder / "model.onnx"), feeds, strict=True)
    ]
    for expected, got in zip(*found, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_retinart_refuses_the_planes(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    ran = retinart("bundle", model_path, "--for", "deepstream", "-o", tmp_path / "new")
    assert ran.returncode == 0, ran.stderr
    assert "DeepStream builds its engine at the first start" in ran.stderr
    for command in ("inspect", "check"):
        ran = retinart(command, tmp_path / "new" / "model.onnx")
        assert ran.returncode == 2 and "its input is float planes" in ran.stderr


def test_nvinferserver(
    tensorrt: Callable[..., FakeBuilder],
    parsed: Callable[[str], Any],
    model_path: Path,
    tmp_path: Path,
) -> None:
    tensorrt()
    engine = tmp_path / "engines" / "one.engine"
    build_engine(model_path, engine, BuildSettings(batch=(1, 2, 4)))
    settings = BundleSettings(server="deepstream", name="cells", max_batch=16)
    report = make_bundle(model_path, [engine], tmp_path / "new", settings)
    config = parsed((report.path / "nvinferserver.txt").read_text())
    assert of_nvinferserver(config) == of_graph(model_path)
    infer = config.infer_config
    assert infer.max_batch_size == 4 and report.gpus == "8.9"  # the engine's most
    triton = infer.backend.triton
    repository = report.path / triton.model_repo.root / triton.model_name
    assert 'backend: "tensorrt"' in (repository / "config.pbtxt").read_text()
    assert (repository / "1" / "model_cc8.9.plan").read_bytes() == engine.read_bytes()
    before = infer.preprocess
    assert before.tensor_order == ENUMS["Order"].index("TENSOR_ORDER_NHWC")
    assert before.network_format == ENUMS["Format"].index("IMAGE_FORMAT_BGR")
    assert (before.normalize.scale_factor, list(before.normalize.channel_offsets)) == (1, [0] * 3)
    after, info = infer.postprocess, read_info(model_path)
    assert (report.path / after.labelfile_path).read_text().split() == list(info.classes)
    assert after.detection.num_detected_classes == len(info.classes)
    source = (report.path / "deepstream_parser.cpp").read_text()
    assert f"bool {after.detection.custom_parse_bbox_func}(" in source
    assert infer.custom_lib.path in source


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("TENSOR_DT_UINT8", "TENSOR_DT_FP32"),
        ("dims: [96, 128, 3]", "dims: [3, 96, 128]"),
        ('"detection_boxes"', '"boxes"'),
    ],
)
def test_the_comparison_itself(
    right: str, wrong: str, parsed: Callable[[str], Any], model_path: Path
) -> None:
    text = pbtxt(nvinferserver_config("m", read_info(model_path), 1))
    assert right in text and of_nvinferserver(parsed(text)) == of_graph(model_path)
    assert of_nvinferserver(parsed(text.replace(right, wrong, 1))) != of_graph(model_path)


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The parser, compiled on stand-ins for DeepStream's types."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    library = tmp_path_factory.mktemp("parser") / "parser.so"
    include = [f"-I{folder}" for folder in (HERE, Path(deepstream.__file__).parent)]
    flags = ["-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["g++", *flags, *include, "-o", library, HERE / "parser_on_cpu.cpp"], check=True)
    function = ctypes.CDLL(str(library)).parse

    def run(
        count: int, boxes: Any, scores: Any, classes: Any, *, first: bytes = b"num_detections"
    ) -> Any:
        out = np.zeros((len(scores), 6), np.float32)
        given = [
            np.array([count], np.int32),
            np.array(boxes, np.float32),
            np.array(scores, np.float32),
            np.array(classes, np.int32),
        ]
        pointers = [values.ctypes.data_as(ctypes.c_void_p) for values in given]
        sizes = (3, ctypes.c_float(0.5), 100, 50)
        number = function(first, *pointers, *sizes, out.ctypes.data_as(ctypes.c_void_p))
        return number if number < 0 else out[:number].tolist()

    return run


def test_the_parser(parse: Callable[..., Any]) -> None:
    boxes = [[1, 2, 11, 22], [-5, 0, 120, 60], [100, 10, 110, 20], [0, 0, 1, 1], [0, 0, 9, 9]]
    scores, classes = [0.75, 0.5, 0.9, 0.25, 0.9], [2, 0, 1, 1, 3]
    assert parse(5, boxes, scores, classes) == [
        [2, 0.75, 1, 2, 10, 20],
        [0, 0.5, 0, 0, 100, 50],  # clipped; the others: outside, below the threshold, no class
    ]
    assert parse(1, boxes, scores, classes) == [[2, 0.75, 1, 2, 10, 20]]
    assert parse(0, boxes, scores, classes) == []
    assert parse(5, boxes, scores, classes, first=b"other") == -1


def test_what_is_refused(
    retinart: Command, model_path: Path, dynamic_model_path: Path, tmp_path: Path
) -> None:
    more = ("--for", "deepstream", "-o", tmp_path / "new")
    for message, *arguments in (
        ("its size is dynamic, and DeepStream", dynamic_model_path, *more),
        ("--backend is for Triton", model_path, *more, "--backend", "python"),
        ("DeepStream does not take --winograd", model_path, *more, "--winograd"),
        ("there is no engine at", model_path, tmp_path / "none.engine", *more),
    ):
        ran = retinart("bundle", *arguments)
        assert (ran.returncode, ran.stdout) == (2, "") and message in ran.stderr, ran.stderr
        assert files_below(tmp_path) == []
