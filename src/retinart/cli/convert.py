"""`retinart convert`: a file becomes an FP16 file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retinart.cli.fields import add_file, add_max_pixels, describe_command, options_of, record_of


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart convert`."""
    from retinart.calib.settings import ConvertSettings

    describe_command(
        parser,
        "Write a model with the float part of its network in FP16, for GPUs. Normalisation, "
        "decoding and NMS stay FP32, and so does every tensor that would overflow.",
        "retinart convert model.onnx --images images -o model.fp16.onnx",
    )
    parser.add_argument("model", type=Path, help="an FP32 or INT8 file of retinart")
    add_file(parser, "model.fp16.onnx", "the FP16 file to write")
    add = options_of(parser, ConvertSettings, "ranges of the activations")
    add(
        "images",
        "folder, file or glob of images to observe the activations on",
        otherwise="take the ranges from --record",
        metavar="SOURCE",
    )
    add("num", "how many of --images to use")
    add("seed", "another seed chooses other images")
    add(
        "record",
        "JSON file of a calibration of this model; its ranges are used",
        otherwise="the one beside the model, if there is one and no --images are given",
    )
    add_max_pixels(parser)
    parser.set_defaults(extra="export")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.calib.convert import convert
    from retinart.calib.settings import ConvertSettings

    report = convert(args.model, args.out, record_of(ConvertSettings, args))
    if not report.source:
        print(
            "Activations were not checked against FP16's largest value, 65504: give --images or "
            "--record to check them",
            file=sys.stderr,
        )
    else:
        print(f"ranges of {report.source} were checked against FP16's 65504", file=sys.stderr)
    for name, peak in report.kept.items():
        print(f"stays FP32: {name}, which reached {peak:.4g}", file=sys.stderr)
    print(report.path)
    return 0
