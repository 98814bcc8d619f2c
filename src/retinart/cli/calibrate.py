"""`retinart calibrate`: an FP32 file becomes an INT8 file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart calibrate` to the parser."""
    calibrate = commands.add_parser(
        "calibrate",
        parents=[common],
        help="FP32 ONNX to INT8 ONNX",
        description="Observe the ranges of activations on images, resized as the runtime resizes "
        "them, and write the model with Q/DQ pairs. A record of ranges, method and hashes goes "
        "beside it. With a budget, the fewest layers stay in float that keep it.",
    )
    calibrate.add_argument("model", type=Path)
    calibrate.add_argument("-o", "--out", type=Path, default=Path("model.int8.onnx"))
    calibrate.add_argument("--images", metavar="SOURCE", help="folder, file or glob")
    calibrate.add_argument("--num", type=int, default=200, metavar="N", help="images to use")
    calibrate.add_argument("--seed", type=int, default=0, help="that draws them")
    calibrate.add_argument(
        "--method", choices=("minmax", "percentile", "mse", "entropy"), default="percentile"
    )
    calibrate.add_argument(
        "--weight-bits",
        type=int,
        choices=(8, 7),
        default=8,
        help="7 for fleets of CPUs with and without VNNI: the same numbers on all of them",
    )
    calibrate.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="take the ranges from this record of the same weights and size",
    )
    calibrate.add_argument(
        "--annotations", type=Path, metavar="FILE", help="COCO instances, to measure AP"
    )
    calibrate.add_argument(
        "--eval-images", type=Path, metavar="DIR", help="their images, if not those of --images"
    )
    calibrate.add_argument(
        "--max-drop", type=float, metavar="D", help="AP points that may be lost at most"
    )
    calibrate.add_argument(
        "--keep-float",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave layers in float, such as 'backbone.layer1.*'; may be given again",
    )
    calibrate.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="an HTML page with ranges, the sensitivity of each layer, and AP where annotated",
    )
    calibrate.set_defaults(run=_calibrate, extra="export")


def _calibrate(args: argparse.Namespace) -> int:
    from retinart.calib.calibrate import calibrate
    from retinart.calib.settings import CalibrationSettings
    from retinart.calib.tables import accuracy_table, sensitivity_table

    settings = CalibrationSettings(
        images=args.images,
        num=args.num,
        seed=args.seed,
        method=args.method,
        weight_bits=args.weight_bits,
        record=args.record,
        annotations=args.annotations,
        eval_images=args.eval_images,
        max_drop=args.max_drop,
        keep_float=tuple(args.keep_float),
        report=args.report,
    )
    report = calibrate(args.model, args.out, settings)
    record = report.record
    tables = [sensitivity_table(record, most=10)] if record.sensitivity else []
    tables += [accuracy_table(record.accuracy)] if record.accuracy else []
    for table in tables:
        print("\n".join([table.text(), *table.notes]), end="\n\n", file=sys.stderr)
    for layer in record.kept_float:
        print(f"in float: {layer}", file=sys.stderr)
    print(
        f"{report.convolutions} convolutions are INT8, by {record.method} over {record.images} "
        f"images; the record is {report.record_path}",
        file=sys.stderr,
    )
    print(report.path)
    if args.report is not None:
        print(args.report)
    return 0
