"""The machine's highest rates of arithmetic, as a library reaches them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

import numpy as np

from retinart.benchmarks.timing.alternate import milliseconds
from retinart.benchmarks.timing.worker import Worker, nothing, stateless
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.runtime.openvino_api import has_bf16, load_openvino, openvino_core

# Rows, inner size and columns of the products. The fastest of them gives the peak, and the caches
# decide which one that is. There are few rows, because quantizing them takes a part of the time.
# The last product is like a 3x3 convolution of 256 channels.
_PRODUCTS = ((1024, 1024, 1024), (2048, 2304, 1024), (2048, 2304, 256))
_SIDE = 8192  # of the matrices on a GPU
_GPU_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Measured peaks in 10^9 operations a second. A multiply-accumulate is two operations.

    Attributes:
        bf16: None for a GPU, and for a CPU without such instructions.
        fp16: None for a CPU, which computes FP16 files in FP32.
        bandwidth: 10^9 bytes a second that a GPU reads and writes; None for a CPU.
    """

    fp32: float
    int8: float
    bf16: float | None = None
    fp16: float | None = None
    bandwidth: float | None = None

    def of(self, precision: str) -> float:
        """The peak of the arithmetic that layers of this precision are computed in."""
        kind = precision.partition("+")[0]
        peaks = {"int8": self.int8, "bf16": self.bf16, "fp16": self.fp16}
        return peaks.get(kind) or self.fp32

    def __or__(self, other: Peaks) -> Peaks:
        """The higher of both, as a noisy moment can only lower a peak."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return Peaks(**{name: max(a, b) if a and b else a or b for name, (a, b) in pairs.items()})

    def __str__(self) -> str:
        """For the middle of a sentence."""
        said = [f"{self.fp32:.0f} GFLOP/s in FP32"]
        said += [f"{self.bf16:.0f} in BF16"] if self.bf16 else []
        said += [f"{self.fp16:.0f} in FP16"] if self.fp16 else []
        said += [f"{self.int8:.0f} GOP/s in INT8"]
        return ", ".join(said)


def measure_peaks(threads: int) -> Peaks:
    """The rates of the fastest of some large matrix products on the CPU, in each arithmetic."""
    kinds: list[Literal["fp32", "int8", "bf16"]] = ["fp32", "int8"]
    kinds += ["bf16"] if has_bf16() else []
    return Peaks(**{kind: max(_rate(threads, kind, *p) for p in _PRODUCTS) for kind in kinds})


def measure_gpu_peaks() -> Peaks | None:
    """The rates of the first GPU and its memory's bandwidth; None without a GPU or PyTorch.

    Another process measures them, and frees the GPU's memory when it ends.

    Raises:
        Lost: the process failed, or took too long.
    """
    if not find_gpus() or importlib.util.find_spec("torch") is None:
        return None
    with Worker(nothing, seconds=_GPU_SECONDS) as worker:
        return worker.call(stateless(_gpu_peaks))


def _rate(
    threads: int, kind: Literal["fp32", "bf16", "int8"], rows: int, inner: int, columns: int
) -> float:
    """10^9 operations a second of the fastest of ten products."""
    openvino = load_openvino()
    ops = openvino.opset13
    rng = np.random.default_rng(0)
    x = ops.parameter([rows, inner], np.float32)
    type_of = np.int8 if kind == "int8" else np.float32
    left, right = x, ops.constant(rng.integers(-127, 128, (columns, inner)).astype(type_of))
    if kind == "int8":
        left = ops.fake_quantize(x, *(np.float32(v) for v in (-128, 127, -128, 127)), 256)
        right = ops.multiply(ops.convert(right, "f32"), np.float32(0.01))
    model = openvino.Model([ops.matmul(left, right, False, True)], [x], "product")
    hint = "bf16" if kind == "bf16" else "f32"
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    request = openvino_core().compile_model(model, "CPU", config).create_infer_request()
    values = rng.integers(-127, 128, (rows, inner)).astype(np.float32)
    work = partial(request.infer, {0: values}, share_inputs=True)
    seconds = min(milliseconds(work) for _ in range(10)) / 1000
    return 2 * rows * inner * columns / seconds / 1e9


def _gpu_peaks() -> Peaks | None:
    import torch

    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False  # as engines are built: FP32 is FP32
    n = _SIDE

    def seconds(work: Callable[[], object]) -> float:
        def whole() -> None:
            work()
            torch.cuda.synchronize()

        torch.cuda.synchronize()
        return min(milliseconds(whole) for _ in range(12)) / 1000

    def product(kind: torch.dtype) -> float:
        a, b = (torch.randint(-8, 8, (n, n), device="cuda").to(kind) for _ in range(2))
        multiply = torch._int_mm if kind is torch.int8 else torch.matmul
        # Hopper multiplies INT8 only by a transposed matrix (pytorch#113327)
        return 2 * n**3 / seconds(lambda: multiply(a, b.t())) / 1e9

    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return Peaks(
        fp32=product(torch.float32),
        fp16=product(torch.float16),
        int8=product(torch.int8),
        bandwidth=2 * source.numel() / seconds(lambda: target.copy_(source)) / 1e9,
    )
