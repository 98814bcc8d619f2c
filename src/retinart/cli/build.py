"""`retinart build`: an ONNX file becomes a TensorRT engine."""

from __future__ import annotations

import argparse
from pathlib import Path

from retinart.cli.fields import add_written, describe_command, options_of, record_of, written

_SUFFIX = ".engine"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart build`."""
    from retinart.export.settings import BuildSettings

    describe_command(
        parser,
        "Build an engine from an ONNX file of retinart. The plan is plain, as TensorRT writes it; "
        "its metadata stands beside it in FILE.json. TensorRT builds on the GPU that will run the "
        "engine. TensorRT-RTX also builds without a GPU, for GPUs from Ampere on.",
        "retinart build model.onnx -o model.engine --batch 1 1 8",
    )
    parser.add_argument("model", type=Path, help="the ONNX file")
    add_written(parser, _SUFFIX, "the engine to write")
    add = options_of(parser, BuildSettings, "engine")
    add(
        "runtime",
        "runtime to build for; auto takes TensorRT where TensorRT and a GPU are present, and "
        "TensorRT-RTX elsewhere",
    )
    add(
        "batch",
        "smallest, optimal and largest number of images in a call",
        metavar=("MIN", "OPT", "MAX"),
    )
    add(
        "precision",
        "refuse a file of another precision; the engine always has the file's",
        otherwise="take the file as it is",
    )
    add(
        "nms",
        "form of NMS: plugin is retinart's own, whose kernel lies in the plan (TensorRT 10.9 or "
        "later); efficient is NVIDIA's EfficientNMS_TRT; graph is the file's nodes, which every "
        "runtime has. auto takes the first that the runtime has",
    )
    add("version_compatible", "make an engine that later versions of TensorRT run too")
    add(
        "hardware_compatible",
        "other GPUs that shall run the engine: all of the same compute capability (TensorRT 10.8 "
        "or later), or all from ampere on; with none, another model of GPU may refuse it",
    )
    add(
        "compute_capability",
        "compute capabilities that an engine of TensorRT-RTX is for, such as 8.9 12.0",
        otherwise="all that it knows from Ampere on",
        nargs="+",
        metavar="X.Y",
    )
    add = options_of(parser, BuildSettings, "build")
    add(
        "timing_cache",
        "file with the timings of earlier builds, read and then updated; makes builds quicker",
        otherwise="no file",
    )
    add(
        "workspace",
        "GPU memory in GiB that a layer may use for itself",
        otherwise="TensorRT's choice",
        metavar="GIB",
    )
    add(
        "optimization_level",
        "effort of the build, from 0 to 5; more effort can give a faster engine",
        otherwise="TensorRT's choice",
    )
    add(
        "timing_iterations",
        "runs of each kernel that TensorRT averages; more make its choice steadier",
        otherwise="TensorRT's choice",
    )
    add(
        "tiling",
        "how hard TensorRT looks for layers that share the L2 cache (10.8 or later); can help "
        "GPUs with little bandwidth, and makes the build longer",
        otherwise="TensorRT's choice",
    )
    add("device", "number of the GPU that TensorRT builds on")
    parser.set_defaults(extra="export")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.common.progress import Progress
    from retinart.export.build import build_engine
    from retinart.export.settings import BuildSettings

    progress = Progress()
    report = build_engine(
        args.model,
        written(args, _SUFFIX),
        record_of(BuildSettings, args),
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
