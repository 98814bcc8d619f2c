"""`compute="auto"`: the fastest that loses no more than the file does, found out once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.runtime import fastest
from retinart.engine.runtime.openvino_api import has_bf16

MEASURE = fastest._bf16_is_faster


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether bf16 is faster, one answer for each time that is measured; a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fastest, "has_bf16", lambda device: True)
    answers = [True, False]
    monkeypatch.setattr(fastest, "_bf16_is_faster", lambda *_: answers.pop(0))
    return answers


def auto(model: Path, monkeypatch: pytest.MonkeyPatch, threads: int = 1) -> str:
    """What the layers of a model are computed in; nothing is loaded."""

    def runner(path: Path, info: Any, thresholds: Any, options: Any) -> str:
        return f"runs in {options.compute}"

    monkeypatch.setattr("retinart.engine.detector.open_runner", runner)
    detector = Detector(model, compute="auto", check=False, threads=threads)
    return f"{detector.precision} {detector.runner}"


def test_a_float_file_stays_as_it_is(
    model_path: Path, machine: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert auto(model_path, monkeypatch) == "fp32 runs in fp32" and len(machine) == 2


def test_an_int8_file_is_timed_once(
    int8_path: Path, machine: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert auto(int8_path, monkeypatch) == "int8+bf16 runs in bf16" and len(machine) == 1
    assert auto(int8_path, monkeypatch, threads=2) == "int8 runs in fp32" and not machine
    monkeypatch.setattr(fastest, "has_bf16", lambda device: False)
    assert auto(int8_path, monkeypatch) == "int8 runs in fp32"


def test_a_real_measurement(int8_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_bf16():
        pytest.skip("this CPU has no bf16")
    monkeypatch.setattr(fastest, "_bf16_is_faster", MEASURE)
    monkeypatch.setattr(fastest, "_RUNS", 1)
    with Detector(int8_path, compute="auto", check=False, cache=False, threads=1) as detector:
        assert detector.precision in ("int8", "int8+bf16")


def test_other_runtimes_compute_a_file_as_it_is(model_path: Path) -> None:
    with Detector(model_path, compute="auto", runtime="onnxruntime", check=False) as detector:
        assert detector.precision == "fp32"
    with pytest.raises(BadInput, match="only OpenVINO computes"):
        Detector(model_path, compute="bf16", runtime="onnxruntime")
