"""The limits of a GPU, as far as a CPU can tell: what is multiplied, and what a failure does."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
import torch

from retinart.benchmarks.latency import run as latency
from retinart.benchmarks.timing import limits
from retinart.benchmarks.timing.isolated import Lost


def test_what_is_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's library takes INT8 on Hopper only with the second matrix transposed."""
    layouts, real = list[tuple[int, ...]](), torch._int_mm
    randint, empty = torch.randint, torch.empty

    def int_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        layouts.append(b.stride())
        assert a.is_contiguous()
        return real(a, b)

    def without_gpu(make: Any) -> Any:
        return lambda *sizes, device, **other: make(*sizes, **other)

    monkeypatch.setattr(limits, "_SIDE", 32)
    monkeypatch.setattr(torch, "_int_mm", int_mm)
    monkeypatch.setattr(torch, "randint", without_gpu(randint))
    monkeypatch.setattr(torch, "empty", lambda n, dtype, device: empty(n >> 14, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    peaks = limits._gpu_peaks()
    assert peaks is not None and min(peaks.fp32, peaks.int8, peaks.bandwidth or 0) > 0
    assert set(layouts) == {(1, 32)}


def test_a_failure_is_said_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED\nand more")

    monkeypatch.setattr(limits, "measure_gpu_peaks", fail)
    assert latency._gpu_peaks() is None
    said = capsys.readouterr().err
    assert said == "the GPU's limits are not measured: RuntimeError: CUBLAS_STATUS_NOT_SUPPORTED\n"


def test_a_process_that_dies_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not waited for: a crash in a GPU's library must not hang a benchmark."""
    monkeypatch.setattr(limits, "find_gpus", lambda: ["a GPU"])
    monkeypatch.setattr(limits, "_gpu_peaks", partial(os._exit, 3))
    with pytest.raises(Lost, match="died with exit code 3"):
        limits.measure_gpu_peaks()
