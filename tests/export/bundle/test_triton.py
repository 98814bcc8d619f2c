"""Bundles for Triton: the configuration beside the graph, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from fake_builder import GPU, FakeBuilder
from retinart.engine.common.files import sha256
from retinart.engine.errors import BadInput
from retinart.engine.model.info import read_info
from retinart.engine.tensorrt.engine_file import engine_json
from retinart.export.build import build_engine
from retinart.export.bundle.bundle import make_bundle
from retinart.export.bundle.pbtxt import Symbol, pbtxt
from retinart.export.bundle.settings import Backend, BundleSettings
from retinart.export.bundle.triton import triton_config
from retinart.export.settings import BuildSettings
from support import Tensors, files_below, graph_tensors

model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
text_format = pytest.importorskip("google.protobuf.text_format")

TYPES = {"TYPE_UINT8": "UINT8", "TYPE_INT32": "INT32", "TYPE_FP32": "FLOAT"}


def parsed(text: str) -> Any:
    """The configuration as Triton's own protobuf reads it."""
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def of_config(config: Any) -> Tensors:
    """Type and shape of each tensor that a configuration names, with the batch first."""
    names = model_config_pb2.DataType.Name
    return {
        one.name: (TYPES[names(one.data_type)], [-1, *one.dims])
        for one in (*config.input, *config.output)
    }


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "python"])
@pytest.mark.parametrize("kind", ["fp32", "int8", "dynamic"])
def test_the_configuration_is_the_graphs(
    backend: Backend,
    kind: str,
    model_path: Path,
    int8_path: Path,
    dynamic_model_path: Path,
    tmp_path: Path,
) -> None:
    model = {"fp32": model_path, "int8": int8_path, "dynamic": dynamic_model_path}[kind]
    settings = BundleSettings(server="triton", backend=backend, name="cells", max_batch=4)
    assert make_bundle(model, [], tmp_path / "new", settings).backend == backend
    config = parsed((tmp_path / "new" / "cells" / "config.pbtxt").read_text())
    assert of_config(config) == graph_tensors(model)
    assert (config.name, config.max_batch_size, config.backend) == ("cells", 4, backend)
    assert (tmp_path / "new" / "cells" / "1" / config.default_model_filename).is_file()
    size = read_info(model).min_size
    warm = {w.batch_size: list(w.inputs["frames"].dims) for w in config.model_warmup}
    assert warm == {1: [*size, 3], 4: [*size, 3]}
    labels = (tmp_path / "new" / "cells" / "labels.txt").read_text().splitlines()
    assert labels == list(read_info(model).classes)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("TYPE_UINT8", "TYPE_FP32"),
        ("dims: [100, 4]", "dims: [100, 5]"),
        ('"detection_boxes"', '"boxes"'),
        ("dims: [96, 128, 3]", "dims: [3, 96, 128]"),
    ],
)
def test_the_comparison_itself(right: str, wrong: str, model_path: Path) -> None:
    info = read_info(model_path)
    text = pbtxt(triton_config("model", info, "onnxruntime", [], 8))
    assert of_config(parsed(text)) == graph_tensors(model_path)
    assert right in text
    assert of_config(parsed(text.replace(right, wrong, 1))) != graph_tensors(model_path)


def test_text_of_protobuf() -> None:
    values = {"name": 'a "b"\\', "backend": "größe", "max_batch_size": 3, "platform": "x"}
    found = parsed(pbtxt(values))
    assert {name: getattr(found, name) for name in values} == values
    text = pbtxt(
        {"instance_group": [{"kind": Symbol("KIND_CPU"), "gpus": [1, 2], "passive": True}]}
    )
    (group,) = parsed(text).instance_group
    assert (group.kind, list(group.gpus), group.passive) == (2, [1, 2], True)


Build = Callable[..., Path]
Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def build(tensorrt: Callable[..., FakeBuilder], model_path: Path, tmp_path: Path) -> Build:
    """Builds an engine with a double of TensorRT, and says that it is for another GPU."""
    tensorrt()

    def make(name: str, model: Path = model_path, **changes: Any) -> Path:
        path = tmp_path / "engines" / f"{name}.engine"
        info = build_engine(model, path, BuildSettings(batch=(1, 2, 4))).info
        path.write_bytes(name.encode())
        info = dataclasses.replace(info, plan_sha256=sha256(path), **changes)
        engine_json(path).write_text(info.to_json())
        return path

    return make


def test_engines_by_their_gpu(build: Build, model_path: Path, tmp_path: Path) -> None:
    engines = [build("one"), build("two", compute_capability="9.0")]
    settings = BundleSettings(server="triton", name="m", max_batch=16)
    report = make_bundle(model_path, engines, tmp_path / "new", settings)
    config = parsed((report.path / "m" / "config.pbtxt").read_text())
    named = dict(config.cc_model_filenames)
    assert named == {"8.9": "model_cc8.9.plan", "9.0": "model_cc9.0.plan"}
    plans = {cc: (report.path / "m" / "1" / file).read_bytes() for cc, file in named.items()}
    assert plans == {"8.9": b"one", "9.0": b"two"} and GPU.compute_capability == "8.9"
    assert of_config(config) == graph_tensors(model_path)
    assert (config.backend, config.max_batch_size) == ("tensorrt", 4)  # the engines' most
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert (config.default_model_filename, report.gpus) == ("model_cc8.9.plan", "8.9, 9.0")


def test_an_engine_for_many_gpus_is_the_one_for_all_others(
    retinart: Command, build: Build, model_path: Path, tmp_path: Path
) -> None:
    engines = [build("own"), build("many", hardware_compatible=True)]
    out = tmp_path / "new"
    ran = retinart("bundle", model_path, *engines, "--for", "triton", "--name", "m", "-o", out)
    assert "its engines run on compute capability 8.0 and later, 8.9\n" in ran.stderr, ran.stderr
    config = parsed((out / "m" / "config.pbtxt").read_text())
    assert dict(config.cc_model_filenames) == {"8.9": "model_cc8.9.plan"}
    assert config.default_model_filename == "model.plan"
    assert (out / "m" / "1" / "model.plan").read_bytes() == b"many"


def test_engines_that_do_not_fit(
    build: Build, model_path: Path, dynamic_model_path: Path, tmp_path: Path
) -> None:
    def fails(message: str, *engines: Path, **more: Any) -> None:
        settings = BundleSettings(**{"server": "triton", **more})
        with pytest.raises(BadInput, match=message):
            make_bundle(model_path, engines, tmp_path / "new", settings)
        assert not (tmp_path / "new").exists()

    one = build("one")
    fails("is for the same GPUs|are for the same GPUs", one, build("same"))
    many = build("all", hardware_compatible=True)
    fails("8.0 and later", many, build("more", hardware_compatible=True))
    fails("TensorRT-RTX built it", build("rtx", runtime="tensorrt-rtx"))
    fails("was built from another file", build("other", model=dynamic_model_path))
    fails("takes no single image", build("many", profile=((2, 96, 128, 3),) * 3))
    fails("there are 1 engines, and the backend is python", one, backend="python")
    fails("there are 0 engines, and the backend is tensorrt", backend="tensorrt")
    fails("runs no engines", one, server="openvino-model-server")
    one.write_bytes(b"damaged")
    fails("is not the engine that", one)
    engine_json(one).unlink()
    fails("has no one.engine.json beside it", one)
    assert not any(name.startswith("new") for name in files_below(tmp_path))
