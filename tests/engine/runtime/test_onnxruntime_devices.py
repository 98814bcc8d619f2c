"""ONNX Runtime on NVIDIA's GPUs: what it is told, and errors where it lacks a provider.

A double stands for the ONNX Runtime that has these providers. Nothing here runs on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, MissingDependency

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
CPU: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})


def test_the_names_are_onnx_runtimes() -> None:
    assert set(PROVIDERS.values()) <= set(onnxruntime.get_all_providers())


@pytest.mark.parametrize("device", PROVIDERS)
def test_a_provider_that_is_not_installed(device: str, model_path: Path) -> None:
    if PROVIDERS[device] in onnxruntime.get_available_providers():
        pytest.skip("it is installed here")
    with pytest.raises(MissingDependency, match=f"has no {PROVIDERS[device]}.*onnxruntime-gpu"):
        Detector(model_path, runtime="onnxruntime", device=device)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An ONNX Runtime with all providers, of which CUDA alone starts; what sessions are told."""
    found: list[Any] = []
    real = onnxruntime.InferenceSession

    def session(model: Any, settings: Any, *, providers: Any, **more: Any) -> Any:
        found.append(providers)
        made = real(model, settings, providers=[CPU], **more)
        starts = [name for name, _ in providers if name != PROVIDERS["tensorrt"]]
        monkeypatch.setattr(made, "get_providers", lambda: starts)
        return made

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    return found


def test_what_onnx_runtime_is_told(told: list[Any], model_path: Path) -> None:
    for device, number in (("cuda", "0"), ("CUDA:1", "1"), ("tensorrt-rtx:2", "2")):
        with Detector(model_path, runtime="onnxruntime", device=device, check=False) as detector:
            provider = PROVIDERS[device.lower().partition(":")[0]]
            assert told[-1] == [(provider, {"device_id": number}), CPU]
            assert detector._runner is not None and device.lower() in detector._runner.identity
    Detector(model_path, runtime="onnxruntime", check=False).close()
    assert told[-1] == [CPU]


def test_a_provider_that_does_not_start(told: list[Any], model_path: Path) -> None:
    """ONNX Runtime would run on the CPU without a word."""
    with pytest.raises(MissingDependency, match="TensorrtExecutionProvider does not start here"):
        Detector(model_path, runtime="onnxruntime", device="tensorrt")


@pytest.mark.parametrize("device", ["rocm", "cuda:x", "cuda:-1", ""])
def test_no_such_device(device: str, model_path: Path) -> None:
    if device:
        with pytest.raises(BadInput, match="has no device"):
            Detector(model_path, runtime="onnxruntime", device=device)
    else:
        Detector(model_path, runtime="onnxruntime", device=device, check=False).close()
