"""`retinart convert`: a file becomes an FP16 file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart convert` to the parser."""
    convert = commands.add_parser(
        "convert",
        parents=[common],
        help="FP32 or INT8 ONNX to FP16",
        description="Write a model with the float part of its network in FP16. Normalisation, "
        "decoding and NMS stay FP32, and so does what would overflow by the ranges seen.",
    )
    convert.add_argument("model", type=Path)
    convert.add_argument("-o", "--out", type=Path, default=Path("model.fp16.onnx"))
    convert.add_argument("--precision", choices=("fp16",), default="fp16")
    convert.add_argument("--images", metavar="SOURCE", help="images to take ranges from")
    convert.add_argument("--num", type=int, default=16, metavar="N", help="of them")
    convert.add_argument("--seed", type=int, default=0, help="that draws them")
    convert.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="calibration record to take ranges from (default: the one beside the model)",
    )
    convert.set_defaults(run=_convert, extra="export")


def _convert(args: argparse.Namespace) -> int:
    from retinart.calib.convert import convert
    from retinart.calib.settings import ConvertSettings

    report = convert(
        args.model,
        args.out,
        ConvertSettings(
            precision=args.precision,
            images=args.images,
            num=args.num,
            seed=args.seed,
            record=args.record,
        ),
    )
    if not report.source:
        print(
            "no ranges were given, so nothing but the weights was checked against FP16's 65504: "
            "give --images or --record",
            file=sys.stderr,
        )
    else:
        print(f"ranges of {report.source} were checked against FP16's 65504", file=sys.stderr)
    for name, peak in report.kept.items():
        print(f"stays FP32: {name}, which reached {peak:.4g}", file=sys.stderr)
    print(report.path)
    return 0
