"""INT8 on CPUs without VNNI: a trial finds them out; 7-bit weights detect as 8-bit weights do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from retinart.calib.calibrate import calibrate
from retinart.calib.quantize import quantize_weights
from retinart.calib.record import read_record
from retinart.calib.settings import CalibrationSettings
from retinart.engine.common.cpu import VNNI, instruction_sets, int8_text
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.media.images import read_image
from retinart.engine.model.info import CANDIDATES, read_info
from retinart.engine.runtime import saturation
from retinart.engine.runtime.openvino_api import find_tensors, load_openvino
from retinart.engine.runtime.openvino_probe import tensor_probe
from retinart.engine.runtime.saturation import LARGEST, avoid_saturation, halved
from support import ROOT

# Runs in a process of its own, as oneDNN reads the variable once.
IN_ANOTHER_PROCESS = """
import json, sys
from pathlib import Path
import numpy as np
from retinart.engine.media.images import read_image
from retinart.engine.model.info import HEADS, read_info
from retinart.engine.runtime.openvino_probe import tensor_probe
from retinart.engine.runtime.saturation import saturates

exact, quantized, picture = map(Path, sys.argv[1:])
frames, _ = read_info(exact).resize.apply([read_image(picture)])
noise = signal = 0.0
left, right = tensor_probe(exact, HEADS), tensor_probe(quantized, HEADS)
for name, values in left(frames).items():
    noise += float(np.square(right(frames)[name] - values).sum())
    signal += float(np.square(values - values.mean()).sum())
print(json.dumps({"saturates": saturates(), "noise": (noise / signal) ** 0.5}))
"""


def without_vnni(*arguments: Path) -> dict[str, float]:
    """The answer of IN_ANOTHER_PROCESS on AVX512 without VNNI."""
    if "avx512f" not in instruction_sets():
        pytest.skip("this CPU has no AVX512 to be held to")
    ran = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, *map(str, arguments)],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, float] = json.loads(ran.stdout)
    return answer


@pytest.fixture
def picture(small_scenes: Path) -> Path:
    return sorted(small_scenes.iterdir())[-1]


def test_no_loss_without_vnni(model_path: Path, int8_path: Path, picture: Path) -> None:
    """The raw outputs are as near to FP32 as with VNNI. With 8 bits the noise is 0.37."""
    found = without_vnni(model_path, int8_path, picture)
    assert found["saturates"]
    assert found["noise"] < 0.12


def test_a_device_with_vnni_computes_the_file_as_it_is(
    int8_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: what plain OpenVINO makes of the file is what the probe makes of it."""
    monkeypatch.setattr(saturation, "saturates", lambda device: False)
    openvino, info = load_openvino(), read_info(int8_path)
    frames, _ = info.resize.apply([read_image(picture)])
    core = openvino.Core()
    whole = core.read_model(int8_path)
    model = openvino.Model(find_tensors(whole, CANDIDATES), whole.get_parameters())
    plain = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({0: frames})
    found = tensor_probe(int8_path, CANDIDATES)(frames)
    for index, name in enumerate(CANDIDATES):
        assert np.array_equal(found[name], plain[index])


def test_what_the_try_says_agrees_with_the_flags() -> None:
    if not instruction_sets() & VNNI or os.environ.get("ONEDNN_MAX_CPU_ISA"):
        pytest.skip("this CPU has no VNNI")
    assert not saturation.saturates()
    assert not saturation.saturates("NO_SUCH_DEVICE")  # said when the model is loaded


def test_halves_cancel() -> None:
    """Each is within 1/2 of the half, and a channel's sum within 1/2 of half the sum."""
    rng = np.random.default_rng(3)
    integers = rng.integers(-127, 128, (40, 6, 3, 3)).astype(np.int8)
    result = halved(integers)
    assert result.shape == integers.shape and result.dtype == np.int8
    assert np.abs(result).max() <= LARGEST
    error = result - integers / 2
    assert np.abs(error).max() <= 0.5 and not error[integers % 2 == 0].any()
    sums = error.reshape(40, -1).sum(axis=1)
    assert np.abs(sums).max() <= 0.5
    left = integers.reshape(40, -1).sum(axis=1, dtype=int)
    assert (np.sign(sums) * np.sign(left) <= 0).all()  # towards 0
    edges = np.array([[127, 127, -127, -127]], np.int8)
    assert np.abs(halved(edges)).max() <= LARGEST


def test_only_what_overflows_changes(int8_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights of the file get 7 bits, once; a float file has none, and is not tried on."""
    tried: list[str] = []

    def yes(device: str) -> bool:
        tried.append(device)
        return True

    monkeypatch.setattr(saturation, "saturates", yes)
    core = load_openvino().Core()
    model = core.read_model(int8_path)
    graph = onnx.load(int8_path).graph
    weights = {i.name for i in graph.initializer if len(i.dims) == 4 and i.data_type == 3}
    assert avoid_saturation(model, "CPU") == len(weights)
    assert avoid_saturation(model, "CPU") == 0
    assert tried == ["CPU"]


def test_a_file_of_7_bit_weights(model_path: Path, small_scenes: Path, tmp_path: Path) -> None:
    """No integer is above 64, the record and the file say so, and it detects as FP32 does."""
    report = calibrate(
        model_path,
        tmp_path / "seven.onnx",
        CalibrationSettings(images=str(small_scenes), num=4, weight_bits=7),
    )
    assert read_record(report.record_path).weight_bits == 7
    assert read_info(report.path).provenance["calibration"]["weight_bits"] == 7
    integers = [
        numpy_helper.to_array(i)
        for i in onnx.load(report.path).graph.initializer
        if len(i.dims) == 4 and i.data_type == onnx.TensorProto.INT8
    ]
    assert integers and max(np.abs(i.astype(int)).max() for i in integers) == LARGEST
    image = read_image(sorted(small_scenes.iterdir())[-1])
    with Detector(model_path) as exact, Detector(report.path) as quantized:
        expected, found = exact(image)[:20], quantized(image)[:20]
    assert abs(float(expected.confidence.mean() - found.confidence.mean())) < 0.05
    with pytest.raises(BadInput, match="`weight_bits` is 6"):
        CalibrationSettings(images="x", weight_bits=6)  # type: ignore[arg-type]


def test_7_bit_weights_are_8_bit_ones_halved() -> None:
    weights = np.random.default_rng(5).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    eight, scales = quantize_weights(weights)
    seven, coarser = quantize_weights(weights, 7)
    assert np.array_equal(seven, halved(eight)) and np.array_equal(coarser, 2 * scales)


def test_what_int8_is_worth() -> None:
    with_vnni, without = frozenset({"avx2", "avx512_vnni"}), frozenset({"avx2", "avx512f"})
    assert "2.3 to 2.8 times" in int8_text(with_vnni) and "8 bits" in int8_text(with_vnni)
    assert "1.2 to 1.4 times" in int8_text(without) and "7 bits" in int8_text(without)
    assert "7 bits" in int8_text(with_vnni, saturates=True)
    assert "; retinart gives INT8 weights 8 bits here" in int8_text(with_vnni)
    assert "not measured" in int8_text(frozenset({"asimd"}))


def test_what_int8_is_worth_is_what_the_grid_measured() -> None:
    timings = json.loads((ROOT / "benchmarks/results/paper_grid.json").read_text())["timings"]
    models = [m for t in timings if t["checkpoint"] == "resnet50" for m in t["benchmark"]["models"]]
    ratios = [m["times_as_fast_as_first"]["value"] for m in models if m["precision"] == "int8"]
    said = int8_text(frozenset({"avx512_vnni"}))
    assert f"in INT8 was {min(ratios):.1f} to {max(ratios):.1f} times as fast as in FP32" in said


def test_the_commands_say_it(int8_path: Path, model_path: Path, retinart: object) -> None:
    """`inspect` of an INT8 file says what it is worth here; of a float one it does not."""
    said = retinart("inspect", int8_path)  # type: ignore[operator]
    assert "on this CPU" in said.stdout and "weight_bits 8" in said.stdout
    assert "on this CPU" not in retinart("inspect", model_path).stdout  # type: ignore[operator]
    assert "VNNI" in retinart("doctor").stdout  # type: ignore[operator]
