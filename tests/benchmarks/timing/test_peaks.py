"""The machine's peaks, and what a failure on a GPU does to a benchmark."""

from __future__ import annotations

import os
from functools import partial

import pytest

from retinart.benchmarks.latency import run as latency
from retinart.benchmarks.timing import peaks
from retinart.benchmarks.timing.peaks import Peaks
from retinart.benchmarks.timing.worker import Lost


def test_which_peak_holds_for_which_precision() -> None:
    cpu, gpu = Peaks(fp32=250, int8=1000), Peaks(fp32=250, int8=1000, fp16=500, bandwidth=1000)
    assert (cpu.of("fp16"), cpu.of("int8+fp16"), gpu.of("fp16")) == (250, 1000, 500)
    bf16 = Peaks(fp32=250, int8=1000, bf16=400)
    assert (cpu.of("bf16"), bf16.of("bf16"), bf16.of("int8+bf16")) == (250, 400, 1000)


def test_the_higher_of_two_peaks_counts() -> None:
    a, b = Peaks(fp32=200, int8=900, bf16=400), Peaks(fp32=250, int8=800, bf16=300)
    assert a | b == Peaks(fp32=250, int8=900, bf16=400)
    assert str(a) == "200 GFLOP/s in FP32, 400 in BF16, 900 GOP/s in INT8"


def test_a_failure_is_printed_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED\nand more")

    monkeypatch.setattr(latency, "measure_gpu_peaks", fail)
    assert latency.gpu_peaks() is None
    said = capsys.readouterr().err
    assert said == "the GPU's peaks are not measured: RuntimeError: CUBLAS_STATUS_NOT_SUPPORTED\n"


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in a GPU's library must not hang a benchmark."""
    monkeypatch.setattr(peaks, "find_gpus", lambda: ["a GPU"])
    monkeypatch.setattr(peaks, "_gpu_peaks", partial(os._exit, 3))
    with pytest.raises(Lost, match="died with exit code 3"):
        peaks.measure_gpu_peaks()
