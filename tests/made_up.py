"""Benchmarks with made-up times, so that a test does not depend on the machine."""

from __future__ import annotations

from typing import Any

from retinart.benchmarks.timing.machine import Machine
from retinart.benchmarks.timing.peaks import Peaks
from retinart.benchmarks.timing.results import Benchmark, ModelTimes, PeerTimes, Percentiles
from retinart.benchmarks.timing.statistics import Estimate

PEER = "torchvision eager"
MACHINE = Machine(cpu="a CPU", cpus=2, flags=(), system="x", python="3", versions={"openvino": "1"})


def interval(value: float, half: float = 0.1) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def times(total: float, runs: int = 4) -> dict[str, Any]:
    """The fields of `Times`: 10 ms lie outside of infer."""
    ms = {"total": total, "decode": 1.0, "resize": 1.0, "copy": 0.0, "infer": total - 10,
          "nms": 8.0, "results": 1.0}  # fmt: skip
    return {
        "imgsz": None, "input": (64, 96), "inputs": 1,
        "ms": {stage: Percentiles.of([value]) for stage, value in ms.items()},
        "runs_ms": {stage: (value,) * runs for stage, value in ms.items()},
        "images_per_second": 1000 / total, "detections": 30.0, "load_ms": 9.0, "first_ms": 9.0,
        "peak_mib": 200.0,
    }  # fmt: skip


def model_times(name: str = "a.onnx", ratio: float = 2.0, **more: Any) -> ModelTimes:
    """A model that is so many times as fast as a peer of 100 ms."""
    fields: dict[str, Any] = {
        **times(100 / ratio), "model": name, "file": name, "sha256": "00", "precision": "fp32",
        "compute": "fp32", "batch": 1, "streams": 1, "gmac": 2.0, "share_of_peak": 0.5,
        "times_as_fast_as_first": interval(ratio), "times_as_fast_as": {PEER: interval(ratio)},
    }  # fmt: skip
    return ModelTimes(**fields | more)


def made_benchmark(*models: ModelTimes, **more: Any) -> Benchmark:
    """A benchmark of some models beside a peer of 100 ms."""
    peer = PeerTimes(**times(100), peer=PEER, what="torchvision's RetinaNet, eager mode")
    fields: dict[str, Any] = {
        "what": "made up", "drawn": False, "images": ("a.jpg",), "repeats": 4, "threads": 2,
        "machine": MACHINE, "peak_gops": Peaks(fp32=150, int8=600), "gpu_peak_gops": None,
        "reference_ms": (1.0,), "noise": 0.3, "models": models, "peers": (peer,), "left_out": (),
    }  # fmt: skip
    return Benchmark(**fields | more)
