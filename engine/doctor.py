"""List what is installed, what each missing part would add, and the command that adds it."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from retinart.engine.common.cpu import VNNI, cpu_name, instruction_sets, int8_text
from retinart.engine.common.cpu_budget import cpu_budget
from retinart.engine.common.table import Table
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.errors import RetinartError, pip_command
from retinart.engine.runtime.openvino_api import has_bf16
from retinart.engine.runtime.saturation import saturates
from retinart.engine.runtime.tuning import int8_and_fp32

# For each part: the distributions that provide it, its extra of retinart, its purpose
_PARTS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("numpy",), "", "everything"),
    (("opencv-python", "opencv-python-headless"), "", "images and webcams"),
    (("av",), "", "reading and writing video, network streams"),
    (("pillow",), "", "images resized as detectron2 and odtk do"),
    (("openvino",), "", "detection on a CPU (the default runtime)"),
    (("onnxruntime", "onnxruntime-gpu"), "onnxruntime", "detection on ONNX Runtime"),
    (("torch",), "export", "training, and reading checkpoints for export"),
    (("onnx",), "export", "writing ONNX files"),
    (("pycocotools",), "eval", "COCO accuracy: retinart eval"),
    (("pyyaml",), "eval", "annotations of YOLO: data.yaml"),
    (("trackers",), "track", "object ids across frames: retinart detect --track"),
    (("supervision",), "track", "the detections that trackers reads"),
    (("prometheus-client",), "metrics", "figures for Prometheus: retinart detect --metrics"),
    (("paho-mqtt",), "mqtt", "results to MQTT: retinart detect --sink mqtt://..."),
    (("confluent-kafka",), "kafka", "results to Kafka: retinart detect --sink kafka://..."),
    (("ray",), "ray", "detection on many machines: retinart detect --ray"),
    (("matplotlib",), "report", "plots of reports and trainings"),
    (("tensorboard",), "train", "training curves in TensorBoard"),
    (("tensorrt-rtx-cu13", "tensorrt-rtx"), "tensorrt-rtx", "building engines on a CPU"),
    (("tensorrt",), "tensorrt", "TensorRT engines on NVIDIA GPUs"),
    (("pycuda",), "pycuda", "CUDA for TensorRT engines; built from source, taken first"),
    (("cuda-bindings",), "cuda-bindings", "the same where pycuda is missing; ready-made wheels"),
)

# For each of the commands that most users want: the packages that it needs, and their extra. Of the
# packages in one tuple, one is enough.
_NEEDS: dict[str, tuple[tuple[tuple[str, ...], ...], str]] = {
    "detect": ((("openvino", "onnxruntime", "onnxruntime-gpu"),), ""),
    "export": ((("torch",), ("onnx",), ("onnxruntime", "onnxruntime-gpu")), "export"),
    "calibrate": ((("onnx",), ("openvino",)), "export"),
    "eval": ((("pycocotools",),), "eval"),
    "train": ((("torch",), ("pycocotools",)), "train"),
}
_ENGINES = "TensorRT engines"  # asked for where there is a GPU
_OF_ENGINES = (
    (("tensorrt", "tensorrt-rtx-cu13", "tensorrt-rtx"), ("pycuda", "cuda-bindings")),
    "tensorrt",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A package or a capability of the hardware.

    Attributes:
        name: the distribution or the capability.
        version: what is there, or None.
        purpose: what retinart uses it for.
        command: how to get it; "" when it is there.
    """

    name: str
    version: str | None
    purpose: str
    command: str


def examine() -> list[Part]:
    """Every part that retinart can use, installed or not."""
    parts = []
    for names, extra, purpose in _PARTS:
        name, version = names[0], None
        for candidate in names:
            try:
                name, version = candidate, metadata.version(candidate)
                break
            except metadata.PackageNotFoundError:
                continue
        command = "" if version else pip_command(extra)
        parts.append(Part(name=name, version=version, purpose=purpose, command=command))
    flags = instruction_sets()
    wide, bf16 = bool(flags & VNNI), _asked(has_bf16)
    parts.append(
        Part(
            name="VNNI",
            version=", ".join(sorted(flags & VNNI)) or None,
            purpose=int8_text(flags, saturates=_asked(saturates)),
            command=""
            if wide or "avx2" not in flags
            else "a CPU with AVX-VNNI, AVX512-VNNI or AMX",
        )
    )
    parts.append(
        Part(
            name="bf16",
            version="in this CPU" if bf16 else None,
            purpose="float layers faster than in FP32, on a CPU: --compute bf16",
            command="" if bf16 else "a CPU with AVX512-BF16 or AMX",
        )
    )
    if (times := _int8_and_fp32()) is not None:
        faster = "INT8" if times[0] < times[1] else "FP32"
        what = f"the faster one here, for a 3x3 convolution of 256 channels: {times[0]:.1f} ms in "
        what += f"INT8, {times[1]:.1f} ms in FP32, by Winograd's algorithm if that is faster"
        parts.append(Part(name="INT8 or FP32", version=faster, purpose=what, command=""))
    gpus = find_gpus()
    found = ", ".join(f"{g.name} ({g.compute_capability}, CUDA {g.cuda})" for g in gpus)
    parts.append(
        Part(
            name="NVIDIA GPU",
            version=found or None,
            purpose="running TensorRT engines",
            command="" if gpus else "a machine with a GPU and NVIDIA's driver",
        )
    )
    return parts


@functools.cache
def _int8_and_fp32() -> tuple[float, float] | None:
    """Times of a convolution on this machine; None if OpenVINO is missing or broken."""
    try:
        return int8_and_fp32(cpu_budget().threads)
    except (ImportError, RetinartError, RuntimeError):
        return None


def _asked(question: Callable[[], bool]) -> bool:
    """OpenVINO's answer; False if OpenVINO is missing or broken."""
    try:
        return question()
    except (ImportError, RetinartError):
        return False


def parts_table(parts: list[Part]) -> str:
    """The parts as text, below the Python version, the system and the CPU."""
    rows = [
        (p.name, p.version or "missing", p.purpose + (f"  ->  {p.command}" if p.command else ""))
        for p in parts
    ]
    return (
        f"Python {platform.python_version()} on {platform.platform()}\n"
        f"{cpu_name()}: {' '.join(sorted(instruction_sets()))}\n"
        f"CPU time: {cpu_budget()}\n"
        f"{Table(rows=rows, words=3).text()}\n\n"
        f"{verdict(parts)}"
    )


def verdict(parts: list[Part]) -> str:
    """One line: which commands and precisions work here, and what installs the others."""
    there = {part.name for part in parts if part.version}

    def works(needs: tuple[tuple[str, ...], ...]) -> bool:
        return all(there.intersection(names) for names in needs)

    gpu = "NVIDIA GPU" in there
    wanted = {**_NEEDS, _ENGINES: _OF_ENGINES} if gpu else _NEEDS
    good = [name for name, (needs, _) in wanted.items() if works(needs)]
    missing = [name for name in wanted if name not in good]
    # OpenVINO alone computes in bf16
    precisions = "FP32, INT8 and bf16" if {"bf16", "openvino"} <= there else "FP32 and INT8"
    named = [f"detect (on the CPU in {precisions})" if n == "detect" else n for n in good]
    said = [f"Works here: {', '.join(named) or 'nothing'}."]
    if not gpu:
        said.append(f"{_ENGINES} need a machine with an NVIDIA GPU.")
    if missing:
        extras = dict.fromkeys(wanted[name][1] for name in missing if wanted[name][1])
        said.append(f"For {', '.join(missing)}: {pip_command(','.join(extras))}")
    return " ".join(said)
