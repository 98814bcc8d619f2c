"""Does TensorRT's own parser and builder take the file? TensorRT-RTX answers without a GPU.

It builds ahead of time on the CPU, so a graph that TensorRT would refuse is found where the file is
made and not where it is deployed. Nothing is run here.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinart.engine.errors import CheckFailed, MissingDependency
from retinart.engine.info import INPUT, ModelInfo


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """A build that succeeded.

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
    return importlib.util.find_spec("tensorrt_rtx") is not None


def check_build(path: Path, info: ModelInfo, *, max_batch: int = 1) -> BuildReport:
    """Parse and build an exported file with TensorRT-RTX on the CPU.

    Args:
        path: the ONNX file.
        info: its metadata; the profile comes from its sizes.
        max_batch: largest batch of the profile; the smallest and the optimal are 1.

    Raises:
        MissingDependency: TensorRT-RTX is not installed.
        CheckFailed: the parser or the builder refused the graph; the message has their words.
    """
    try:
        import tensorrt_rtx as trt
    except ImportError as error:
        raise MissingDependency.package(
            "tensorrt_rtx", "tensorrt-rtx", "Checking the graph with TensorRT-RTX"
        ) from error

    class Log(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    start = time.perf_counter()
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        problems = [parser.get_error(i) for i in range(parser.num_errors)]
        raise CheckFailed(
            f"TensorRT-RTX cannot parse {path.name}",
            why="; ".join(f"node {p.node_name() or p.node()}: {p.desc()}" for p in problems),
            fix="Export again; if that does not help, report it with the model's `inspect` output",
        )
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    (h0, w0), (h1, w1) = info.min_size, info.max_size
    profile.set_shape(INPUT, (1, h0, w0, 3), (1, h1, w1, 3), (max_batch, h1, w1, 3))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CheckFailed(
            f"TensorRT-RTX parses {path.name} but cannot build it",
            why="; ".join(log.errors[-3:]),
            fix="Export again; if that does not help, report it with the model's `inspect` output",
        )
    return BuildReport(
        seconds=time.perf_counter() - start, plan_bytes=plan.nbytes, version=trt.__version__
    )
