"""The NMS kernel's own source, compiled by g++ and run on a CPU: see `nms_on_cpu.cpp`."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retinart.engine.tensorrt.kernels import source_path
from retinart.export.nms_plugin import scalars
from support import Once

SHIM = Path(__file__).parent / "engine" / "tensorrt" / "nms_on_cpu.cpp"
Floats = npt.NDArray[np.float32]
Outputs = tuple[npt.NDArray[np.int32], Floats, Floats, npt.NDArray[np.int32]]


def compile_kernel(output: Path, *flags: str) -> Path:
    """Compile the kernel and its shim; skips the test where there is no g++."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    # -ffp-contract=off is what the kernel's intrinsics are to nvcc
    always = ["-std=c++17", "-pthread", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    include = ["-I", str(source_path("nms").parent)]
    subprocess.run(["g++", *always, *flags, *include, "-o", output, SHIM], check=True)
    return output


class NmsKernel:
    """The kernel as a function on NumPy arrays.

    Args:
        once: so that it is compiled once.
    """

    def __init__(self, once: Once) -> None:
        def make(folder: Path) -> None:
            compile_kernel(folder / "nms.so", "-O2", "-shared", "-fPIC")

        self._run = ctypes.CDLL(str(once("nms kernel", make) / "nms.so")).nms_on_cpu

    def __call__(
        self,
        boxes: Floats,
        scores: Floats,
        limits: Floats,
        attributes: dict[str, Any],
        *,
        threads: int = 8,
    ) -> Outputs:
        """The four outputs for boxes (N, C, 4) and scores (N, C, K), by a block of `threads`."""
        images, candidates, classes = scores.shape
        most = attributes["max_detections"]
        # filled with what the kernel must overwrite
        count, labels = np.full((images, 1), -7, np.int32), np.full((images, most), -7, np.int32)
        kept = np.full((images, most, 4), -7, np.float32)
        confidence = np.full((images, most), -7, np.float32)
        inputs = [np.ascontiguousarray(a, np.float32) for a in (boxes, scores, limits)]
        outputs = (count, kept, confidence, labels)
        self._run(
            *map(_pointer, inputs),
            *scalars(candidates, classes, attributes),
            *map(_pointer, outputs),
            images,
            threads,
            -1,
        )
        return outputs


def _pointer(array: npt.NDArray[Any]) -> Any:
    return array.ctypes.data_as(ctypes.c_void_p)
