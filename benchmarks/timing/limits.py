"""What a machine can do at most, measured through a library, and what a model asks of it."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from retinart.benchmarks.timing.isolated import Worker
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.model.info import CANDIDATES, INPUT
from retinart.engine.runtime.openvino_api import find_tensor, load_openvino
from retinart.engine.runtime.openvino_runner import has_bf16

# Rows, inner size and columns of the products that give the peaks, the best of them: which one
# depends on the caches. Few rows, since quantizing them is part of the time; the last one is as a
# 3x3 convolution of 256 channels.
_PRODUCTS = ((1024, 1024, 1024), (2048, 2304, 1024), (2048, 2304, 256))
_SIDE = 8192  # of the matrices on a GPU
_GPU_SECONDS = 300
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Measured limits, in 10^9 operations a second; a MAC is two.

    Attributes:
        bf16: None for a GPU, and for a CPU without such instructions.
        fp16: None where it is not measured: a CPU computes FP16 files in FP32.
        bandwidth: 10^9 bytes a second that a GPU reads and writes, or None for a CPU.
    """

    fp32: float
    int8: float
    bf16: float | None = None
    fp16: float | None = None
    bandwidth: float | None = None

    def of(self, precision: str) -> float:
        """The limit of the arithmetic that layers of this precision are computed in."""
        kind = precision.partition("+")[0]
        limits = {"int8": self.int8, "bf16": self.bf16, "fp16": self.fp16}
        return limits.get(kind) or self.fp32


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the convolutions of a graph do for one image.

    Attributes:
        macs: multiply-accumulates.
        values: numbers that they read and write, weights included, each convolution by itself.
    """

    macs: int
    values: int


def bytes_of(precision: str) -> int:
    """Of a number in the network of a model file of this precision."""
    return _BYTES[precision.partition("+")[0].removesuffix("-direct")]


def measure_peaks(threads: int) -> Peaks:
    """The fastest of some products of large matrices on the CPU, in each arithmetic it has."""
    return Peaks(
        fp32=_peak(threads, "fp32"),
        int8=_peak(threads, "int8"),
        bf16=_peak(threads, "bf16") if has_bf16() else None,
    )


def measure_gpu_peaks() -> Peaks | None:
    """The same on the first GPU, and its memory's bandwidth; None without a GPU or PyTorch.

    It is done in a process of its own, which gives the GPU's memory back when it ends.

    Raises:
        Lost: something went wrong there, or it took too long.
    """
    if not find_gpus() or importlib.util.find_spec("torch") is None:
        return None
    worker = Worker(_GPU_SECONDS)
    try:
        peaks: Peaks | None = worker.call(_gpu_peaks)
        return peaks
    finally:
        worker.close()


def best(a: Peaks, b: Peaks) -> Peaks:
    """The higher of each: a peak that was measured in a noisy moment is none."""
    bf16 = None if a.bf16 is None or b.bf16 is None else max(a.bf16, b.bf16)
    return Peaks(fp32=max(a.fp32, b.fp32), int8=max(a.int8, b.int8), bf16=bf16)


def count_work(model: Path, size: tuple[int, int]) -> Work:
    """Count a file's convolutions, from the input to the candidates.

    Args:
        model: the ONNX file.
        size: height and width of the input.
    """
    openvino = load_openvino()
    whole = openvino.Core().read_model(model)
    network = openvino.Model([find_tensor(whole, n) for n in CANDIDATES], whole.get_parameters())
    network.reshape({INPUT: [1, *size, 3]})
    macs = values = 0
    for op in network.get_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            image, weights, out = (
                list(port.get_shape())
                for port in (op.input_value(0), op.input_value(1), op.output(0))
            )
            macs += int(np.prod(out) * np.prod(weights[-3:]))  # channels of a group, kernel
            values += int(np.prod(image) + np.prod(weights) + np.prod(out))
    return Work(macs=macs, values=values)


def _peak(threads: int, kind: Literal["fp32", "bf16", "int8"]) -> float:
    return max(_rate(threads, kind, *shape) for shape in _PRODUCTS)


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
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    values = rng.integers(-127, 128, (rows, inner)).astype(np.float32)
    best = np.inf
    for _ in range(10):
        start = time.perf_counter()
        request.infer({0: values}, share_inputs=True)
        best = min(best, time.perf_counter() - start)
    return float(2 * rows * inner * columns / best / 1e9)


def _gpu_peaks() -> Peaks | None:
    import torch

    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False  # as engines are built: FP32 is FP32
    n = _SIDE

    def seconds(work: object) -> float:
        assert callable(work)
        times = []
        for _ in range(12):
            torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times)

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
