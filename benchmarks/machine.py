"""The machine under a measurement: what it is, how quiet it is, and what it could do at most."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.info import CANDIDATES, INPUT
from retinart.engine.runners import find_tensor, load_openvino

REST_S = 0.05  # between two runs, so that idle threads of the one have stopped spinning
PACKAGES = ("retinart", "openvino", "numpy", "opencv-python-headless")
# Rows, inner size and columns of the product that gives the peaks: few rows, since quantizing them
# is part of the time.
_PRODUCT = (512, 4096, 8192)


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Measured limits of arithmetic, in 10^9 operations a second; a MAC is two."""

    fp32: float
    int8: float


def describe(*packages: str) -> dict[str, Any]:
    """CPU, system, versions and, in a checkout, the commit, as plain JSON types."""
    versions = {}
    for name in (*PACKAGES, *packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = _commit()
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "flags": sorted(_flags() & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"}),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        **({"commit": commit} if commit else {}),
    }


def reference() -> float:
    """Milliseconds of a fixed piece of arithmetic: its spread tells how quiet the machine is."""
    time.sleep(REST_S)
    x = np.ones((1024, 1024), np.float32)
    start = time.perf_counter()
    for _ in range(3):
        x @ x
    return 1000 * (time.perf_counter() - start)


def measure_peaks(threads: int) -> Peaks:
    """The fastest of ten products of large matrices, in float32 and in int8."""
    return Peaks(fp32=_peak(threads, int8=False), int8=_peak(threads, int8=True))


def best(a: Peaks, b: Peaks) -> Peaks:
    """The higher of each: a peak that was measured in a noisy moment is none."""
    return Peaks(fp32=max(a.fp32, b.fp32), int8=max(a.int8, b.int8))


def count_macs(model: Path, batch_size: tuple[int, int]) -> int:
    """Multiply-accumulates of a file's convolutions for one image.

    Args:
        batch_size: height and width of the input.
    """
    openvino = load_openvino()
    whole = openvino.Core().read_model(model)
    network = openvino.Model([find_tensor(whole, n) for n in CANDIDATES], whole.get_parameters())
    network.reshape({INPUT: [1, *batch_size, 3]})
    total = 0
    for op in network.get_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            *_, channels, height, width = op.input_value(1).get_shape()  # channels of a group
            total += int(np.prod(list(op.output(0).get_shape()))) * channels * height * width
    return total


def _peak(threads: int, *, int8: bool) -> float:
    openvino = load_openvino()
    ops = openvino.opset13
    rng = np.random.default_rng(0)
    rows, inner, columns = _PRODUCT
    x = ops.parameter([rows, inner], np.float32)
    weights = rng.integers(-127, 128, (columns, inner)).astype(np.int8 if int8 else np.float32)
    left, right = x, ops.constant(weights)
    if int8:
        left = ops.fake_quantize(x, *(np.float32(v) for v in (-128, 127, -128, 127)), 256)
        right = ops.multiply(ops.convert(right, "f32"), np.float32(0.01))
    model = openvino.Model([ops.matmul(left, right, False, True)], [x], "product")
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    values = rng.integers(-127, 128, (rows, inner)).astype(np.float32)
    best = np.inf
    for _ in range(10):
        start = time.perf_counter()
        request.infer({0: values}, share_inputs=True)
        best = min(best, time.perf_counter() - start)
    return float(2 * rows * inner * columns / best / 1e9)


def _commit() -> str:
    """The commit of the checkout that this file is tracked in, if it is; changes are said."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent.resolve()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not some other project's
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _cpu() -> str:
    return _cpuinfo("model name") or platform.processor()


def _flags() -> set[str]:
    return set(_cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((ln.split(":", 1)[1].strip() for ln in lines if ln.startswith(key)), "")
