"""`retinart curve`: AP against milliseconds an image."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retinart.cli.measuring import COMPUTE_OPTION, add_peers, command_line, say_no_report


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart curve` to the parser."""
    curve = commands.add_parser(
        "curve",
        parents=[common],
        help="AP against ms an image, over scales and precisions",
        description="Export, calibrate, evaluate and time checkpoints at several scales. What is "
        "done is kept in the folder by hash: a run that was stopped goes on.",
    )
    curve.add_argument("checkpoints", type=Path, nargs="+", metavar="CKPT")
    curve.add_argument("--imgsz", type=int, nargs="+", default=[400, 500, 600, 700, 800])
    curve.add_argument("--images", type=Path, required=True, metavar="DIR")
    curve.add_argument("--annotations", type=Path, required=True, metavar="FILE")
    curve.add_argument("--calibration-images", metavar="SOURCE", help="what INT8 is made on")
    curve.add_argument("--calibration-num", type=int, default=200, metavar="N", help="of them")
    curve.add_argument(
        "--precisions", nargs="+", choices=("fp32", "int8"), default=["fp32", "int8"]
    )
    curve.add_argument("--compute", **COMPUTE_OPTION)
    add_peers(curve)
    curve.add_argument("--num-images", type=int, default=16, metavar="N", help="to time on")
    curve.add_argument("--repeats", type=int, default=5, metavar="N", help="of every image")
    curve.add_argument("--threads", type=int, default=2, metavar="N", help="of each runtime")
    curve.add_argument("--out", type=Path, default=Path("runs/curve"), metavar="DIR")
    curve.add_argument("--json", action="store_true", help="for machines")
    curve.set_defaults(run=_curve, extra="export,eval,report")


def _curve(args: argparse.Namespace) -> int:
    from retinart.benchmarks.curve.report import report, write_results
    from retinart.benchmarks.curve.run import CurveSettings, measure_curve
    from retinart.benchmarks.latency.report import why_no_report
    from retinart.benchmarks.peers.find import NAMES

    settings = CurveSettings(
        imgsz=tuple(args.imgsz),
        images=args.images,
        annotations=args.annotations,
        calibration_images=args.calibration_images,
        calibration_num=args.calibration_num,
        precisions=tuple(args.precisions),
        compute=tuple(args.compute),
        peers=NAMES if args.peers == [] else tuple(args.peers or ()),
        torchvision=args.torchvision,
        num_images=args.num_images,
        repeats=args.repeats,
        threads=args.threads,
    )
    say_no_report(why_no_report())
    result = measure_curve(args.checkpoints, args.out, settings)
    result["command"] = command_line("curve", *args.checkpoints, **asdict(settings), out=args.out)
    for path in write_results(args.out, result):
        print(path, file=sys.stderr)
    print(json.dumps(result, indent=1) if args.json else report(result))
    return 0
