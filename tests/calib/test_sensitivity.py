"""`retinart calibrate` with a budget: it finds the layer that was spoiled, and says so."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from retinart.calib import calibrate as calibrating
from retinart.calib import calibration, report
from retinart.calib import sensitivity as looking
from retinart.calib.quantize import quantize
from retinart.calib.record import CalibrationRecord, read_record
from retinart.calib.sensitivity import noise_to_signal, signal_to_noise
from retinart.engine.common.markup import Html
from retinart.engine.model.info import HEADS, read_info
from retinart.export.settings import ExportSettings
from support import SCENES_CHECKPOINT, export_unchecked, save_changed

Command = Callable[..., CompletedProcess[str]]
SPOILED = "backbone.layer2.0.conv2"


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped `tiny` with the same outputs, but one layer's input has one huge channel.

    With the range of that channel the others become zero in INT8. FP32 does not mind: the layer's
    weights for the channel are as much smaller. The input is half as wide and high as in training.
    """
    path = tmp_path_factory.mktemp("spoiled") / "spoiled.onnx"
    settings = ExportSettings(height=128, width=160, tensorrt=False)
    model = onnx.load(export_unchecked(SCENES_CHECKPOINT, path, settings))
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer).copy()
        if initializer.name.startswith("backbone.layer2.0.conv1."):
            values[0] *= 2000
        elif initializer.name == f"{SPOILED}.weight":
            values[:, 0] /= 2000
        else:
            continue
        initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    save_changed(model, path)
    return path


def annotated(scenes: Path) -> tuple[str | Path, ...]:
    images = scenes / "images"
    return ("--images", images, "--num", "3", "--annotations", scenes / "instances.json")


def test_a_budget(
    retinart: Command, spoiled: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pycocotools")
    real = report._histograms

    def few(record: CalibrationRecord) -> Html:
        """Of four tensors: all take seconds to draw."""
        names = [*list(record.histograms)[:3], "backbone.maxpool"]
        shown = {name: record.histograms[name] for name in names}
        thresholds = {name: record.thresholds[name] for name in names}
        return real(dataclasses.replace(record, histograms=shown, thresholds=thresholds))

    monkeypatch.setattr(report, "_histograms", few)
    out, page = tmp_path / "int8.onnx", tmp_path / "report.html"
    ran = retinart(
        "calibrate", spoiled, *annotated(scenes), "--method", "minmax", "--max-drop", "3",
        "--report", page, "-o", out,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{out}\n{page}\n"
    assert f"in float: {SPOILED}" in ran.stderr
    record = read_record(out.with_suffix(".json"))
    assert record.kept_float == (SPOILED,)
    assert next(iter(record.sensitivity)) == SPOILED
    errors = list(record.sensitivity.values())
    assert errors == sorted(errors, reverse=True) and errors[0] > 3 * errors[1]
    assert read_info(out).provenance["calibration"]["kept_float"] == [SPOILED]
    decibels = [value for value in record.signal_to_noise.values() if value is not None]
    assert set(record.signal_to_noise) == set(HEADS) and len(decibels) == 10
    assert 8 < min(decibels) < max(decibels) < 60
    assert "classes, dB" in ran.stderr
    readers = {n.name: n.input[1] for n in onnx.load(out).graph.node if n.op_type == "Conv"}
    assert readers[SPOILED] == f"{SPOILED}.weight"
    assert readers["backbone.layer2.0.conv1"].endswith("/weight")  # its neighbour is INT8

    points = {name: 100 * a.ap for name, a in record.accuracy.items()}
    assert list(points) == ["fp32", "fp16", "int8"]
    assert points["fp32"] > 60 and points["fp32"] - points["int8"] <= 3
    whole = re.search(r"AP (\d+\.\d+) \(.*95% interval.*\): INT8\n", ran.stderr)
    assert whole and float(whole[1]) < points["fp32"] - 3  # it really was over the budget
    assert re.search(r"FP32 +FP16 +INT8\n", ran.stderr)
    for text in ("noise/signal", "AP_small", "disc"):
        assert text in ran.stderr

    html = page.read_text("utf-8")
    assert html.count("<svg") == 2 and "http" not in re.sub(r'xmlns\S*|"http://www.w3\S*', "", html)
    for text in (SPOILED, "<h2>Accuracy", "<h2>Sensitivity", "<h2>Ranges", "backbone.maxpool"):
        assert text in html
    assert sorted(p.name for p in tmp_path.iterdir()) == ["int8.json", "int8.onnx", "report.html"]


@pytest.mark.usefixtures("unmeasured")
def test_layers_can_be_kept_by_hand(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "int8.onnx"
    common = ("calibrate", model_path, "--images", small_scenes, "--num", "2", "-o", out)
    ran = retinart(*common, "--keep-float", "backbone.layer1.*", "--keep-float", "fpn.p6")
    assert ran.returncode == 0
    kept = ("backbone.layer1.0.conv1", "backbone.layer1.0.conv2", "fpn.p6")
    assert read_record(out.with_suffix(".json")).kept_float == kept
    out.unlink()
    ran = retinart(*common, "--keep-float", "layer9")
    assert ran.returncode == 2 and "no layer is called 'layer9'" in ran.stderr
    assert not out.exists()


def test_an_interrupted_look_goes_on(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What was measured before Ctrl-C is not measured again. Nothing is computed here."""
    page = tmp_path / "report.html"
    arguments = (
        "calibrate", model_path, "--images", small_scenes, "--num", "2", "--report", page,
        "-o", tmp_path / "int8.onnx",
    )  # fmt: skip
    calls = []

    def counted(*given: Any, **settings: Any) -> onnx.ModelProto:
        calls.append(given)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return quantize(*given, **settings)

    monkeypatch.setattr(calibrating, "write_report", lambda path, *rest: path.touch())
    outputs = dict.fromkeys(HEADS, np.arange(4, dtype=np.float32))
    monkeypatch.setattr(looking, "tensor_probe", lambda model, names: lambda batch: outputs)
    monkeypatch.setattr(calibration, "quantize", counted)
    assert retinart(*arguments).returncode == 130
    assert [p.name for p in tmp_path.iterdir()] == [".int8.calibrating.json"]
    assert retinart(*arguments).returncode == 0
    layers = len(read_record(tmp_path / "int8.json").sensitivity)
    assert len(calls) == layers + 2  # the fifth twice, and the whole file
    assert sorted(p.name for p in tmp_path.iterdir()) == ["int8.json", "int8.onnx", "report.html"]


def test_bad_settings(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o" / "int8.onnx"
    images = ("--images", small_scenes, "--num", "2")
    for arguments, message in (
        ((), "there is nothing to take ranges from. Give --images or --record"),
        ((*images, "--max-drop", "0.3"), "a budget needs annotated images"),
        ((*images, "--max-drop", "-1", "--annotations", "a.json"), "--max-drop is -1"),
        ((*images, "--annotations", tmp_path / "a.json"), "there is no file"),
        (
            (*images, "--annotations", model_path, "--eval-images", tmp_path / "none"),
            "there is no folder",
        ),
        (("--record", "r.json", "--report", "r.html"), "Give --images as well"),
    ):
        ran = retinart("calibrate", model_path, *arguments, "-o", out)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
        assert not out.parent.exists()


def test_noise_to_signal() -> None:
    rng = np.random.default_rng(0)
    exact = {"a": rng.normal(5, 2, 100_000).astype(np.float32)}
    noisy = {"a": exact["a"] + rng.normal(0, 0.2, 100_000).astype(np.float32)}
    assert noise_to_signal(exact, exact) == 0
    assert noise_to_signal(exact, noisy) == pytest.approx(0.1, rel=0.02)  # for any mean


def test_decibels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Noise with a hundredth of the signal's power is 20 dB; without noise there is no number."""
    rng = np.random.default_rng(0)
    signal = {name: rng.normal(5, 2, 20_000).astype(np.float32) for name in HEADS}
    noisy = {n: v + rng.normal(0, 0.2, v.shape).astype(np.float32) for n, v in signal.items()}
    noisy["deltas_p7"] = signal["deltas_p7"]
    model = tmp_path / "exact.onnx"
    monkeypatch.setattr(
        looking, "_outputs", lambda path, _: iter([signal if path == model else noisy] * 2)
    )
    found = signal_to_noise(model, onnx.ModelProto(), [])
    assert found.pop("deltas_p7") is None
    assert list(found.values()) == pytest.approx([20] * 9, abs=0.2)
