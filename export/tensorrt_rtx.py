"""Check that TensorRT's parser and builder take a file. TensorRT-RTX does that without a GPU.

It builds ahead of time on the CPU. So a graph that TensorRT would refuse is found on the machine
that makes the file, and not on the one that runs it. Nothing is run here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retinart.engine.model.info import ModelInfo
from retinart.engine.tensorrt.api import installed, load_tensorrt
from retinart.export.tensorrt_build import PlanSettings, build_plan, profile_for


@dataclass(frozen=True, kw_only=True)
class TrialBuild:
    """A trial build that succeeded; its plan is not kept.

    Attributes:
        seconds: parsing and building.
        plan_bytes: size of the serialized engine.
        version: of TensorRT-RTX.
    """

    seconds: float
    plan_bytes: int
    version: str


def available() -> bool:
    """Whether TensorRT-RTX is installed here."""
    return installed("tensorrt-rtx")


def check_build(path: Path, info: ModelInfo, *, max_batch: int = 1) -> TrialBuild:
    """Parse and build an exported file with TensorRT-RTX on the CPU.

    Args:
        path: the ONNX file.
        info: its metadata; the profile comes from its sizes.
        max_batch: largest batch of the profile; the smallest and the optimal are 1.

    Raises:
        MissingDependency: TensorRT-RTX is not installed.
        CheckFailed: the parser or the builder refused the graph; the message quotes them.
    """
    trt = load_tensorrt("tensorrt-rtx")
    settings = PlanSettings(profile=profile_for(info, (1, 1, max_batch)))
    plan = build_plan(trt, "tensorrt-rtx", path.read_bytes(), settings, name=path.name)
    return TrialBuild(seconds=plan.seconds, plan_bytes=len(plan.data), version=trt.__version__)
