"""`retinart build`: an ONNX file becomes a TensorRT engine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart build` to the parser."""
    build = commands.add_parser(
        "build",
        parents=[common],
        help="ONNX to a TensorRT engine",
        description="Build an engine of an exported file. The plan is TensorRT's own, plain; what "
        "it is stands beside it in FILE.json. TensorRT builds on the GPU that will run the engine; "
        "TensorRT-RTX also builds without one, for GPUs from Ampere on.",
    )
    build.add_argument("model", type=Path)
    build.add_argument("-o", "--out", type=Path, default=Path("model.engine"), metavar="FILE")
    build.add_argument(
        "--runtime",
        choices=("auto", "tensorrt", "tensorrt-rtx"),
        default="auto",
        help="auto takes TensorRT where it and a GPU are, else TensorRT-RTX",
    )
    build.add_argument(
        "--batch",
        type=int,
        nargs=3,
        default=(1, 1, 1),
        metavar=("MIN", "OPT", "MAX"),
        help="images at once, default 1 1 1",
    )
    build.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8", "int8+fp16"),
        help="refuse a file of another precision; it is the file that has it",
    )
    build.add_argument("--timing-cache", type=Path, metavar="FILE", help="read and written")
    build.add_argument(
        "--workspace", type=float, metavar="GIB", help="GPU memory that a layer may use for itself"
    )
    build.add_argument("--optimization-level", type=int, metavar="N", help="0 to 5")
    build.add_argument("--version-compatible", action="store_true", help="for later versions too")
    build.add_argument(
        "--hardware-compatible", action="store_true", help="for all GPUs from Ampere on"
    )
    build.add_argument(
        "--nms",
        choices=("auto", "plugin", "native"),
        default="auto",
        help="auto takes the plugin EfficientNMS_TRT where TensorRT has it",
    )
    build.set_defaults(run=_build, extra="export")


def _build(args: argparse.Namespace) -> int:
    from retinart.engine.common.progress import Progress
    from retinart.export.build import build_engine
    from retinart.export.settings import BuildSettings

    settings = BuildSettings(
        runtime=args.runtime,
        batch=tuple(args.batch),
        precision=args.precision,
        timing_cache=args.timing_cache,
        workspace=args.workspace,
        optimization_level=args.optimization_level,
        version_compatible=args.version_compatible,
        hardware_compatible=args.hardware_compatible,
        nms=args.nms,
    )
    progress = Progress()
    report = build_engine(
        args.model,
        args.out,
        settings,
        show=lambda fraction, phase: progress.update(int(100 * fraction), 100, phase),
    )
    info = report.info
    for note in report.notes:
        progress.line(note)
    progress.line(
        f"built by {info.runtime} {info.version} in {info.build_seconds:.1f} s"
        + (f" on {info.gpu}" if info.gpu else ", for GPUs from Ampere on")
    )
    print(report.path)
    return 0
