"""How a runtime runs a model: one record of options for each runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retinart.engine.errors import BadInput
from retinart.engine.model.info import COMPUTE, Compute

RuntimeChoice = Literal["auto", "openvino", "onnxruntime"]  # of an ONNX file
Tune = Literal["on", "cached", "off"]
TUNE: tuple[Tune, ...] = ("on", "cached", "off")
MAX_THREADS = 1024  # ONNX Runtime hangs when it is asked for many thousands
MAX_CONTEXTS = 64


@dataclass(frozen=True, kw_only=True)
class OpenVINOOptions:
    """Options of OpenVINO; `Detector` explains each.

    Attributes:
        device: an OpenVINO device, such as "CPU".
        compute: what the network's float layers are computed in.
        threads: inference threads; None leaves the choice to OpenVINO.
        throughput: aim for the highest rate of several batches at once rather than the shortest
            time of one. On a CPU, a few threads then work on each batch.
        cache_dir: where OpenVINO keeps compiled models between starts, or None.
        tune: where the times of convolutions come from: "on" measures those that are not known,
            "cached" takes what was measured before, "off" models them.

    Raises:
        BadInput: an unknown `compute` or `tune`, or too few or too many threads.
    """

    device: str = "CPU"
    compute: Compute = "fp32"
    threads: int | None = None
    throughput: bool = False
    cache_dir: Path | None = None
    tune: Tune = "cached"

    def __post_init__(self) -> None:
        _check_threads(self.threads)
        if self.tune not in TUNE:
            raise BadInput(f"unknown tune {self.tune!r}", fix=f"Choose {', '.join(TUNE)}")
        if self.compute not in COMPUTE:
            raise BadInput(f"unknown compute {self.compute!r}", fix=f"Choose {', '.join(COMPUTE)}")


@dataclass(frozen=True, kw_only=True)
class ONNXRuntimeOptions:
    """Options of ONNX Runtime.

    Attributes:
        device: "CPU"; or a provider for NVIDIA's GPUs, "cuda", "tensorrt" or "tensorrt-rtx", with
            the number of the GPU after a colon.
        threads: inference threads; None leaves the choice to ONNX Runtime.

    Raises:
        BadInput: too few or too many threads.
    """

    device: str = "CPU"
    threads: int | None = None

    def __post_init__(self) -> None:
        _check_threads(self.threads)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of an engine on TensorRT or TensorRT-RTX.

    Attributes:
        gpu: the driver's number of the GPU.
        contexts: batches that can be under way at once.
        graphs: capture the engine's work in CUDA graphs.
        gpu_resize: resize on the GPU, which pays for large frames.
        cache_dir: where TensorRT-RTX keeps its compiled kernels between starts, or None.

    Raises:
        BadInput: too few or too many contexts.
    """

    gpu: int = 0
    contexts: int = 2
    graphs: bool = True
    gpu_resize: bool = False
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.contexts <= MAX_CONTEXTS:
            raise BadInput(f"`contexts` is {self.contexts}", fix=f"Give 1 to {MAX_CONTEXTS}")


Options = OpenVINOOptions | ONNXRuntimeOptions | EngineOptions


def _check_threads(threads: int | None) -> None:
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise BadInput(
            f"`threads` is {threads}", fix=f"Give a whole number from 1 to {MAX_THREADS}"
        )
