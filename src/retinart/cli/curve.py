"""`retinart curve`: AP against milliseconds an image."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from retinart.cli.fields import (
    ANNOTATION_FORMS,
    add_json,
    add_max_pixels,
    add_out,
    describe_command,
    options_of,
    record_of,
)
from retinart.cli.measuring import add_peers, add_runs, command_line, say_no_report, wanted_peers


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart curve`."""
    from retinart.benchmarks.timing.settings import CurveSettings
    from retinart.calib.settings import CALIBRATION_IMAGES

    describe_command(
        parser,
        "Export, calibrate, evaluate and time checkpoints at several scales. The folder keeps each "
        "finished step by hash, so a run that was stopped goes on where it was.",
        "retinart curve retinanet.pth --imgsz 400 600 800 --images images \\",
        "    --annotations instances.json --calibration-images train",
    )
    parser.add_argument(
        "checkpoints", type=Path, nargs="+", metavar="CKPT", help="a checkpoint to export"
    )
    add = options_of(parser, CurveSettings, "dataset")
    add(
        "images",
        "folder of the images to measure AP on; the first of them are timed",
        metavar="DIR",
    )
    add("annotations", f"{ANNOTATION_FORMS}, with their annotations")
    add(
        "calibration_images",
        "folder, file or glob of images to calibrate INT8 on",
        otherwise="make no INT8; then give --precisions fp32",
        metavar="SOURCE",
    )
    add(
        "calibration_listed_in",
        "COCO file; only those of --calibration-images that it lists are used",
        otherwise="all of them",
    )
    add(
        "calibration_num",
        "how many of --calibration-images to use",
        otherwise=f"{CALIBRATION_IMAGES}, or all if there are fewer",
    )
    add = options_of(parser, CurveSettings, "points")
    add("imgsz", "shorter sides in pixels; inputs are 4:3")
    add("precisions", "precisions of the files")
    add = options_of(parser, CurveSettings, "runs")
    add_runs(add)
    add = options_of(parser, CurveSettings, "peers")
    add_peers(add)
    add_out(parser, Path("runs/curve"), "folder for the results and for all that is kept")
    add_max_pixels(parser)
    add_json(parser)
    parser.set_defaults(extra="export,eval,report")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.benchmarks.curve.report import report, write_results
    from retinart.benchmarks.curve.run import measure_curve
    from retinart.benchmarks.timing.settings import CurveSettings
    from retinart.engine.common.html_page import why_no_page
    from retinart.engine.common.typed_json import to_json

    settings = record_of(CurveSettings, args, peers=wanted_peers(args.peers))
    say_no_report(why_no_page())
    command = command_line("curve", *args.checkpoints, **asdict(settings), out=args.out)
    result = replace(measure_curve(args.checkpoints, args.out, settings), command=command)
    for path in write_results(args.out, result):
        print(path, file=sys.stderr)
    print(json.dumps(to_json(result), indent=1) if args.json else report(result))
    return 0
