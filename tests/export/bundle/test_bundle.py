"""Bundles: the client's resize is ours, the model inside gives `Detector`'s detections."""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import Image
from retinart.engine.model.info import INPUT, OUTPUTS, read_info
from retinart.engine.runtime.openvino_api import load_openvino
from retinart.engine.runtime.options import RuntimeChoice
from retinart.engine.runtime.saturation import saturates
from retinart.export.bundle.bundle import make_bundle
from retinart.export.bundle.settings import BundleSettings
from support import ROOT, files_below, load_file, make_picture, run_python, write_images

Command = Callable[..., CompletedProcess[str]]
PICTURES = 20


class Tensor:
    """What stands for a tensor of Triton: it takes and gives DLPack alone."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values

    @classmethod
    def from_dlpack(cls, name: str, given: Any) -> Tensor:
        return cls(np.from_dlpack(given).copy())

    def __dlpack__(self, **_: Any) -> Any:
        return self.values.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the module that Triton gives to a model."""
    double = SimpleNamespace(
        Tensor=Tensor,
        InferenceResponse=list,
        get_input_tensor_by_name=lambda request, name: request[name],
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", double)


def served(folder: Path, name: str) -> Any:
    """The bundle's Python model, loaded as Triton loads it, with its folder on the path."""
    sys.path.insert(0, str(folder / name / "1"))
    try:
        return _initialized(folder, name)
    finally:
        del sys.path[0]


def _initialized(folder: Path, name: str) -> Any:
    model = load_file(folder / name / "1" / "model.py").TritonPythonModel()
    config = {"parameters": {"INFERENCE_PRECISION_HINT": {"string_value": "f32"}}}
    paths = {"model_repository": str(folder / name), "model_version": "1"}
    model.initialize({**paths, "model_config": json.dumps(config)})
    return model


def detections(outputs: dict[str, Any], image: int) -> Detections:
    count, boxes, scores, labels = (outputs[name][image] for name in OUTPUTS)
    n = int(count[0])
    return Detections(xyxy=boxes[:n], confidence=scores[:n], class_id=labels[:n])


def check_same(
    model: Path, images: list[Image], found: list[Detections], *, runtime: RuntimeChoice = "auto"
) -> None:
    """Compare detections in pixels of the frame with those of a detector."""
    if runtime == "auto" and read_info(model).precision == "int8" and saturates():
        pytest.skip("plain OpenVINO's INT8 sums saturate on this CPU; `Detector` avoids it")
    with Detector(model, runtime=runtime) as detector:
        for image, one in zip(images, found, strict=True):
            (resized,) = detector.info.resize.apply([image])[1]
            expected = detector(image)
            most = detector.thresholds.detections_per_img
            cut = float(expected.confidence[-1]) if len(expected) == most else 0.0
            floor = max(cut, detector.thresholds.score_thresh)
            result = match(expected, resized.detections_to_source(one), floor=floor)
            assert result.same and result.matched, result


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_python_backend(
    precision: str, model_path: Path, int8_path: Path, tmp_path: Path
) -> None:
    """Requests of one image and of several, as dynamic batching gathers them."""
    model = model_path if precision == "fp32" else int8_path
    settings = BundleSettings(server="triton", backend="python", name="m")
    make_bundle(model, [], tmp_path / "new", settings)
    images = [make_picture(seed) for seed in range(PICTURES)]
    sizes = [1, 3, 2, 1, 1, 4, 8]
    ends = np.cumsum(sizes)
    groups = [np.stack(images[end - n : end]) for n, end in zip(sizes, ends, strict=True)]
    server, found = served(tmp_path / "new", "m"), []
    for batch in (groups[:4], groups[4:6], groups[6:]):
        responses = server.execute([{INPUT: Tensor(frames)} for frames in batch])
        for frames, response in zip(batch, responses, strict=True):
            outputs = {n: t.values for n, t in zip(OUTPUTS, response, strict=True)}
            found += [detections(outputs, i) for i in range(len(frames))]
    check_same(model, images, found)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino_model_server(
    precision: str, model_path: Path, int8_path: Path, tmp_path: Path
) -> None:
    model = model_path if precision == "fp32" else int8_path
    settings = BundleSettings(server="openvino-model-server", name="m")
    folder = make_bundle(model, [], tmp_path / "new", settings).path
    assert files_below(folder) == [
        "client.py", "config.json", "m/1/model.bin", "m/1/model.xml", "model.json",
    ]  # fmt: skip
    ((entry,),) = json.loads((folder / "config.json").read_text()).values()
    config = entry["config"]
    assert config["name"] == "m" and config["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"
    path = folder / config["base_path"] / "1" / "model.xml"
    network = load_openvino().Core().compile_model(path, "CPU", config["plugin_config"])
    images = [make_picture(seed) for seed in range(PICTURES)]
    outputs = network(np.stack(images))
    found = {name: outputs[name] for name in OUTPUTS}
    check_same(model, images, [detections(found, i) for i in range(PICTURES)])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_kserve(precision: str, model_path: Path, int8_path: Path, tmp_path: Path) -> None:
    """Its Triton runs ONNX Runtime, which runs here without Triton."""
    yaml = pytest.importorskip("yaml")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_path if precision == "fp32" else int8_path
    settings = BundleSettings(server="kserve", name="Blood_Cells.v2")
    folder = make_bundle(model, [], tmp_path / "new", settings).path
    assert files_below(folder) == [
        "client.py", "model.json", "predictor.yaml", "predictor/Dockerfile", "predictor/model.bin",
        "predictor/model.xml", "predictor/predictor.json", "predictor/predictor.py",
        "predictor/requirements.txt", "predictor/retinart_network.py",
        "repository/Blood_Cells.v2/1/model.onnx", "repository/Blood_Cells.v2/config.pbtxt",
        "repository/Blood_Cells.v2/labels.txt", "triton.yaml",
    ]  # fmt: skip
    pin = (folder / "predictor" / "requirements.txt").read_text().split()[-1]
    assert pin.startswith("openvino==") and pin in (ROOT / "constraints.txt").read_text().split()
    for file, part in (("triton.yaml", "model"), ("predictor.yaml", "containers")):
        manifest = yaml.safe_load((folder / file).read_text())
        assert manifest["metadata"]["name"] == "blood-cells-v2"  # what Kubernetes takes
        assert list(manifest["spec"]["predictor"]) == [part]
    path = folder / "repository" / "Blood_Cells.v2" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = [make_picture(seed) for seed in range(PICTURES)]
    found = dict(zip(OUTPUTS, session.run(OUTPUTS, {INPUT: np.stack(images)}), strict=True))
    answered = [detections(found, i) for i in range(PICTURES)]
    check_same(model, images, answered, runtime="onnxruntime")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"interpolation": "pillow", "size_rounding": "nearest"},
        {"interpolation": "float"},
        {"canvas": None, "max_size": 200, "short_side": 100, "size_rounding": "float_floor"},
    ],
)
def test_the_client_resizes_as_we_do(
    change: dict[str, Any], model_path: Path, tmp_path: Path
) -> None:
    folder = make_bundle(model_path, [], tmp_path / "new", BundleSettings(server="triton")).path
    rule = dataclasses.replace(read_info(model_path).resize, **change)
    client = load_file(folder / "client.py")
    client.MODEL["resize"] = json.loads(json.dumps(dataclasses.asdict(rule)))
    for height, width in ((96, 128), (120, 180), (333, 50), (64, 301)):
        image = make_picture(1, height, width)
        frames, (resized,) = rule.apply([image])
        frame, size = client.resize(image)
        np.testing.assert_array_equal(frame, frames[0])
        assert size == resized.size


def test_the_client_tells_what_is_wrong(model_path: Path, tmp_path: Path) -> None:
    """It ended in a traceback when there was no server."""
    folder = make_bundle(model_path, [], tmp_path / "new", BundleSettings(server="triton")).path
    picture = write_images(tmp_path, "0.png") / "0.png"
    with socket.socket() as taken:  # nothing listens there
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for message, *words in (
            ("usage: python client.py",),
            ("usage: python client.py", nowhere),
            (f"{nowhere} does not answer: [Errno", nowhere, str(picture)),
            ("localhost:80 does not answer: ", "localhost:80", str(picture)),
            ("cannot read none.png", nowhere, "none.png"),
        ):
            ran = run_python(str(folder / "client.py"), *words)
            assert ran.returncode == 1 and message in ran.stderr, ran.stderr
            assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("name", ["client.py", "m/1/model.py"])
def test_a_bundle_runs_without_retinart(name: str, model_path: Path, tmp_path: Path) -> None:
    settings = BundleSettings(server="triton", backend="python", name="m")
    folder = make_bundle(model_path, [], tmp_path / "new", settings).path
    code = (
        "import os, runpy, sys\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[1]))\n"
        "sys.modules['retinart'] = None\n"
        "sys.modules['triton_python_backend_utils'] = sys\n"
        "runpy.run_path(sys.argv[1])\n"
        "assert not sys.modules.get('openvino_telemetry')\n"
    )
    done = run_python("-c", code, str(folder / name))
    assert done.returncode == 0, done.stderr


def test_what_is_refused(
    retinart: Command,
    model_path: Path,
    int8_path: Path,
    dynamic_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "new"
    triton = ("--for", "triton", "-o", out)
    for message, *arguments in (
        ("there is no model at", tmp_path / "none.onnx", *triton),
        ("--max-batch is 0", model_path, *triton, "--max-batch", "0"),
        ("--max-batch is 999", model_path, *triton, "--max-batch", "999"),
        ("cannot have the --name '../up'", model_path, *triton, "--name", "../up"),
        ("'client.py': a file of the bundle has it", model_path, *triton, "--name", "client.py"),
        ("does not take --winograd", model_path, *triton, "--winograd"),
        (
            "it has dynamic sizes",
            *(dynamic_model_path, "--for", "openvino-model-server", "-o", out, "--winograd"),
        ),
        ("it is int8", int8_path, *triton, "--backend", "openvino", "--winograd"),
        (
            "--backend is for Triton",
            *(model_path, "--for", "openvino-model-server", "-o", out, "--backend", "python"),
        ),
        ("there is no engine at", model_path, tmp_path / "none.engine", *triton),
    ):
        ran = retinart("bundle", *arguments)
        assert (ran.returncode, ran.stdout) == (2, "") and message in ran.stderr, ran.stderr
        assert files_below(tmp_path) == []
    fp8 = dataclasses.replace(read_info(model_path), precision="fp8")
    with monkeypatch.context() as patch:
        patch.setattr("retinart.export.bundle.bundle.read_info", lambda path: fp8)
        ran = retinart("bundle", model_path, *triton)
    assert ran.returncode == 2 and "it holds FP8" in ran.stderr and not out.exists()
    out.mkdir()
    ran = retinart("bundle", model_path, *triton)
    assert ran.returncode == 2 and "new exists: a server could be reading it" in ran.stderr
    assert list(out.iterdir()) == []


def test_a_failure_leaves_nothing(
    retinart: Command, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device", "client.py")

    monkeypatch.setattr("retinart.export.bundle.bundle._write_client", no_space)
    ran = retinart("bundle", model_path, "--for", "triton", "-o", tmp_path / "new")
    assert ran.returncode == 2 and "No space left" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    ran = retinart("bundle", model_path, "--for", "triton", "-o", tmp_path / "new")
    assert (ran.returncode, ran.stdout) == (0, f"{tmp_path / 'new'}\n"), ran.stderr
    assert "model model, run by onnxruntime" in ran.stderr
    names = ["client.py", "model.json", "model/1/model.onnx", "model/config.pbtxt"]
    assert files_below(tmp_path / "new") == [*names, "model/labels.txt"]
