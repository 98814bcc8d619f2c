"""FP8: the numbers, and files of them on each runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from retinart.calib.calibrate import calibrate
from retinart.calib.convert import convert
from retinart.calib.numbers import FP8, INT8, Numbers
from retinart.calib.record import read_record
from retinart.calib.sensitivity import noise_to_signal
from retinart.calib.settings import CalibrationSettings, ConvertSettings
from retinart.cli import main
from retinart.engine.errors import BadInput
from retinart.engine.media.images import read_image
from retinart.engine.model.info import HEADS, read_info
from retinart.engine.runtime.onnxruntime_runner import open_session
from retinart.engine.runtime.openvino_probe import tensor_probe
from retinart.export import tensorrt_rtx
from support import Once


@pytest.fixture(scope="module")
def fp8_path(model_path: Path, small_scenes: Path, once: Once) -> Path:
    def make(folder: Path) -> None:
        settings = CalibrationSettings(
            images=str(small_scenes), num=4, precision="fp8", correct_bias=True
        )
        report = calibrate(model_path, folder / "model.onnx", settings)
        convert(report.path, folder / "half.onnx", ConvertSettings())

    return once("fp8", make) / "model.onnx"


@pytest.mark.parametrize("numbers", [INT8, FP8])
def test_numbers_are_those_of_onnx(numbers: Numbers) -> None:
    values = np.random.default_rng(2).normal(0, 200, 2000).astype(np.float32)
    values[:6] = 0, 1e4, -1e4, 2.5, 17, 19  # clipped, and between two numbers of each type
    node = onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    zero = numpy_helper.from_array(np.zeros((), numbers.dtype), "zero")
    graph = onnx.helper.make_graph(
        [node],
        "q",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2000])],
        [onnx.helper.make_tensor_value_info("y", numbers.onnx_type, [2000])],
        [zero, numpy_helper.from_array(np.array(2, np.float32), "scale")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    (expected,) = ReferenceEvaluator(model).run(None, {"x": values})
    found = numbers.encode(values / np.float32(2))
    assert np.array_equal(found.astype(np.float32), np.asarray(expected).astype(np.float32))


def test_an_fp8_file(fp8_path: Path) -> None:
    assert read_info(fp8_path).precision == "fp8"
    record = read_record(fp8_path.with_suffix(".json"))
    assert record.precision == "fp8" and record.correct_bias
    constants = {i.name: i for i in onnx.load(fp8_path).graph.initializer}
    weights = [numpy_helper.to_array(i) for n, i in constants.items() if n.endswith("/fp8")]
    assert len(weights) > 20
    for weight in weights:  # each output channel uses the whole range
        peaks = np.abs(weight.astype(np.float32)).reshape(len(weight), -1).max(axis=1)
        assert (peaks >= 416).all() and (peaks <= 448).all()


def test_its_outputs_are_near_fp32_and_equal_on_two_runtimes(
    fp8_path: Path, model_path: Path, small_scenes: Path
) -> None:
    frames = read_image(sorted(small_scenes.iterdir())[-1])[None]
    model = onnx.load(fp8_path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in HEADS)
    session = open_session(model.SerializeToString(), optimise=False)
    values = session.run(list(HEADS), {session.get_inputs()[0].name: frames})
    written: dict[str, Any] = dict(zip(HEADS, values, strict=True))
    exact = {n: v.copy() for n, v in tensor_probe(model_path, HEADS)(frames).items()}
    openvino = {n: v.copy() for n, v in tensor_probe(fp8_path, HEADS)(frames).items()}
    noise = noise_to_signal(exact, written)
    assert 0.01 < noise < 0.25, "E4M3 keeps three bits: an error of up to a sixteenth"
    assert noise_to_signal(written, openvino) < noise


@pytest.mark.parametrize("name", ["model", "half"])
def test_it_passes_its_self_test(name: str, fp8_path: Path) -> None:
    for runtime in ("onnxruntime", "openvino"):
        assert main(["check", str(fp8_path.with_name(f"{name}.onnx")), "--runtime", runtime]) == 0


@pytest.mark.skipif(not tensorrt_rtx.available(), reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize("name", ["model", "half"])
def test_tensorrt_builds_it(name: str, fp8_path: Path) -> None:
    path = fp8_path.with_name(f"{name}.onnx")
    assert tensorrt_rtx.check_build(path, read_info(path)).plan_bytes > 1_000_000


@pytest.mark.parametrize(
    ("name", "value"), [("method", "mse"), ("rounding", "learned"), ("weight_bits", 7)]
)
def test_what_needs_equal_steps_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"`{name}` {value} is not for fp8"):
        CalibrationSettings(images="images", precision="fp8", **{name: value})
