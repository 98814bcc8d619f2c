"""bf16: asked for, in force, as good as FP32; and refused where it cannot be had."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from retinart.benchmarks.timing import peaks
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import read_image
from retinart.engine.model.info import Compute, Precision, computed_in
from retinart.engine.runtime import openvino_runner
from retinart.engine.runtime.openvino_api import has_bf16

Command = Callable[..., CompletedProcess[str]]

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this CPU has no bf16 instructions")


@needs_bf16
def test_the_same_objects_with_other_digits(tiny_path: Path, scenes: Path) -> None:
    """Equal digits would mean that it is not in force, and FP32 must be FP32 unless asked."""
    dataset = load_coco(scenes / "instances.json", scenes / "images")
    fp32, again, bf16 = (
        Detector(tiny_path, threads=1, compute=compute) for compute in ("fp32", "fp32", "bf16")
    )
    assert (fp32.precision, bf16.precision) == ("fp32", "bf16")
    results = []
    for item in dataset.images[:6]:
        image = read_image(item.path)
        expected = fp32(image)
        assert (expected.confidence == again(image).confidence).all()
        results.append(match(expected, bf16(image), floor=0.5))
    result = sum(results[1:], results[0])
    assert result.score_diff > 0
    assert result.matched > 20 * (result.missing + result.extra), result


@needs_bf16
def test_the_float_part_of_an_int8_file(int8_path: Path, small_scenes: Path) -> None:
    image = read_image(sorted(small_scenes.iterdir())[0])
    scores = []
    for compute in ("fp32", "bf16"):
        with Detector(int8_path, threads=1, compute=compute) as detector:
            scores.append(detector(image).confidence[:20].tolist())
    assert detector.precision == "int8+bf16"
    assert scores[0] != scores[1] and scores[0] == pytest.approx(scores[1], abs=0.1)


@pytest.mark.parametrize(
    ("precision", "compute", "expected"),
    [
        ("fp32", "fp32", "fp32"),
        ("fp32", "fp32-direct", "fp32-direct"),
        ("int8", "fp32-direct", "int8"),
        ("int8+fp16", "fp32", "int8+fp16"),
        ("fp16", "bf16", "bf16"),
        ("int8", "bf16", "int8+bf16"),
        ("int8+fp16", "bf16", "int8+bf16"),
    ],
)
def test_what_it_is_called(precision: Precision, compute: Compute, expected: str) -> None:
    assert computed_in(precision, compute) == expected


def test_refused(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with pytest.raises(BadInput, match=r"only OpenVINO computes .* ONNX Runtime runs a file as"):
        Detector(model_path, runtime="onnxruntime", compute="bf16")
    with pytest.raises(BadInput, match=r"unknown compute 'fp8'. Choose fp32, fp32-direct, bf16"):
        Detector(model_path, compute="fp8")  # type: ignore[arg-type]
    monkeypatch.setattr(openvino_runner, "has_bf16", lambda device: False)
    ran = retinart("detect", model_path, images, "--compute", "bf16", "--out", tmp_path / "out")
    assert ran.returncode == 2 and "the device CPU has no bf16 instructions" in ran.stderr
    assert "compute at fp32" in ran.stderr and not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_named_as_before(model_path: Path) -> None:
    assert not has_bf16("NPU7")
    with pytest.raises(BadInput, match="NPU7"):
        Detector(model_path, device="NPU7", compute="bf16")


@needs_bf16
def test_the_gate_with_one_file(
    retinart: Command, tiny_path: Path, scenes: Path, tmp_path: Path
) -> None:
    """The first is in FP32, so that a file is compared with itself."""
    ran = retinart(
        "eval", tiny_path, "--against", tiny_path, "--compute", "bf16", "--images",
        scenes / "images", "--annotations", scenes / "instances.json", "--out", tmp_path / "out",
        "--max-drop", "2",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0].split() == [
        "tiny.onnx", "tiny.onnx", "in", "bf16", "change", "95%", "interval",
    ]  # fmt: skip
    assert re.search(r"tiny\.onnx in bf16 (loses|gains|has the same) .*limit is", ran.stderr)
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert result["drop_points"] != 0


@needs_bf16
def test_both_in_one_benchmark(
    retinart: Command, model_path: Path, small_scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row each, with a limit of its own, and accuracy of its own."""
    monkeypatch.setattr(peaks, "_PRODUCTS", ((256, 256, 256),))  # how high they are does not matter
    ran = retinart(
        "benchmark", model_path, "--images", small_scenes, "--num-images", "2", "--repeats", "1",
        "--threads", "1", "--compute", "fp32", "bf16", "--json",
        "--annotations", small_scenes.parent / "instances.json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    rows = result["models"]
    assert [m["model"] for m in rows] == ["model.onnx", "model.onnx in bf16"]
    assert [m["precision"] for m in rows] == ["fp32", "bf16"]
    assert rows[0]["ap"] != rows[1]["ap"] and rows[0]["gmac"] == rows[1]["gmac"]
    assert result["peak_gops"]["bf16"] > 0 and "--compute fp32 bf16" in result["command"]
    shares = [
        m["share_of_peak"] * m["ms"]["infer"]["p50"] * result["peak_gops"][m["precision"]]
        for m in rows
    ]
    assert shares[0] == pytest.approx(shares[1])
