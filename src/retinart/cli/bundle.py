"""`retinart bundle`: a folder that an inference server loads."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retinart.cli.fields import describe_command, options_of, record_of


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart bundle`."""
    from retinart.export.bundle.settings import BundleSettings

    describe_command(
        parser,
        "Write a folder that an inference server or DeepStream loads as it is: configuration, "
        "model, labels, and an example of a client. See docs/deployment.md.",
        "retinart bundle model.onnx --for triton -o repository",
        "retinart bundle model.onnx a100.engine l4.engine --for triton -o repository",
        "retinart bundle model.onnx --for openvino-model-server -o models",
        "retinart bundle model.onnx t4.engine --for deepstream -o pipeline",
    )
    parser.add_argument("model", type=Path, help="the ONNX file")
    parser.add_argument(
        "engines",
        nargs="*",
        type=Path,
        metavar="engine",
        help="TensorRT engines that were built from it, one for each kind of GPU; Triton takes "
        "the one that fits its GPU",
    )
    add = options_of(parser, BundleSettings)
    add("server", "the server", flag="--for")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="the folder to write"
    )
    add(
        "backend",
        "what runs the file in Triton; auto takes tensorrt where engines are given, and "
        "onnxruntime elsewhere; python runs OpenVINO, which the server's Python must have",
    )
    add("name", "the model's name in the server", otherwise="the file's name")
    add("max_batch", "most images that the server puts into one batch")
    add(
        "winograd",
        "write FP32 convolutions with Winograd's algorithm where that is faster, for OpenVINO",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.export.bundle.bundle import make_bundle
    from retinart.export.bundle.settings import BundleSettings

    report = make_bundle(args.model, args.engines, args.out, record_of(BundleSettings, args))
    built = report.backend == "tensorrt" and not args.engines
    how = "DeepStream builds its engine at the first start" if built else f"run by {report.backend}"
    print(f"model {report.name}, {how}", file=sys.stderr)
    if report.note:
        print(f"note: {report.note}", file=sys.stderr)
    if report.gpus:
        print(f"its engines run on compute capability {report.gpus}", file=sys.stderr)
    print(report.path)
    return 0
