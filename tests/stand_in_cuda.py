"""NVIDIA's driver on a CPU, for programs in a process of their own: see `stand_in_cuda.cpp`.

In this process other tests would take it for a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retinart.engine.tensorrt.kernels import source_path

HERE = Path(__file__).parent
SOURCES = (
    HERE / "stand_in_cuda.cpp",
    HERE / "engine" / "tensorrt" / "kernel_on_cpu.cpp",
    HERE / "engine" / "tensorrt" / "nms_on_cpu.cpp",
)


def compile_driver(folder: Path) -> Path:
    """Make `libcuda.so.1` in a folder and return the folder; skips the test without g++."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", "-ffp-contract=off"]
    warn = ["-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1"]
    include = ["-I", str(source_path("nms").parent)]
    output = folder / "libcuda.so.1"
    subprocess.run(["g++", *flags, *warn, *include, "-o", output, *SOURCES, "-ldl"], check=True)
    return folder


def run_on(
    driver: Path, *arguments: str | Path, fault: str = "", timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    """Run Python with a driver's folder, and with one of its faults."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"LD_LIBRARY_PATH": str(driver), "FAULT": fault, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
