"""`retinart convert`: a file becomes an FP16 file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retinart.cli.fields import describe_command, options_of, record_of


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
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("model.fp16.onnx"),
        metavar="FILE",
        help="the FP16 file to write (default: %(default)s)",
    )
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
    parser.set_defaults(extra="export")


def run(args: argparse.Namespace) -> int:
    """Do it."""
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
