"""Commands that measure: benchmark, curve."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retinart.engine.errors import BadInput
from retinart.engine.info import COMPUTE

_COMPUTE: dict[str, Any] = {
    "nargs": "+",
    "choices": COMPUTE,
    "default": ["fp32"],
    "help": "what OpenVINO computes float layers in, each of these",
}


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add this module's commands to the parser."""
    benchmark = commands.add_parser(
        "benchmark",
        parents=[common],
        help="ms an image of model files, side by side",
        description="Time model files on the same real images, in turn, each in a process of its "
        "own, from a decoded frame to final boxes. The first file is what the others are compared "
        "with.",
    )
    benchmark.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    benchmark.add_argument(
        "--images", metavar="SOURCE",
        help="real images; without them scenes are drawn, on which NMS has other work",
    )  # fmt: skip
    benchmark.add_argument(
        "--annotations", type=Path, metavar="FILE", help="COCO instances of the folder: adds AP"
    )
    benchmark.add_argument(
        "--imgsz", type=int, nargs="+", default=[], metavar="N",
        help="shorter sides, for files that were exported with --dynamic",
    )  # fmt: skip
    benchmark.add_argument(
        "--batch", type=int, nargs="+", default=[1], metavar="N", help="images in a call"
    )
    benchmark.add_argument(
        "--streams", type=int, nargs="+", default=[1], metavar="N", help="calls at once, by threads"
    )
    benchmark.add_argument("--compute", **_COMPUTE)
    _add_peers(benchmark)
    benchmark.add_argument(
        "--checkpoint", type=Path, metavar="CKPT",
        help="what the model was exported from, for peers that run in PyTorch",
    )  # fmt: skip
    benchmark.add_argument("--num-images", type=int, default=16, metavar="N")
    benchmark.add_argument("--repeats", type=int, default=5, metavar="N", help="of every image")
    benchmark.add_argument("--threads", type=int, default=2, metavar="N", help="of each runtime")
    benchmark.add_argument(
        "--out", type=Path, metavar="DIR", help="write benchmark.json, .csv and report.html"
    )
    benchmark.add_argument(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="an older benchmark.json: print new over old by model, matched by name, and stage",
    )
    benchmark.add_argument(
        "--max-ratio",
        type=float,
        metavar="R",
        help="with --compare: exit 1 when a stage takes more than R times as long as then, its "
        "whole 95%% interval above R (default 1.1)",
    )
    benchmark.add_argument("--json", action="store_true", help="for machines")
    benchmark.set_defaults(run=_benchmark)

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
    curve.add_argument("--compute", **_COMPUTE)
    _add_peers(curve)
    curve.add_argument("--num-images", type=int, default=16, metavar="N", help="to time on")
    curve.add_argument("--repeats", type=int, default=5, metavar="N", help="of every image")
    curve.add_argument("--threads", type=int, default=2, metavar="N", help="of each runtime")
    curve.add_argument("--out", type=Path, default=Path("runs/curve"), metavar="DIR")
    curve.add_argument("--json", action="store_true", help="for machines")
    curve.set_defaults(run=_curve, extra="export,eval,report")


def _add_peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peers", nargs="*", metavar="NAME",
        help="also time torchvision, torch-compile, onnxruntime and torch-compile-fp16, or some",
    )  # fmt: skip
    parser.add_argument(
        "--torchvision", type=Path, default=Path("build/peers"), metavar="DIR",
        help="where torchvision was installed with `pip install --no-deps --target DIR`",
    )  # fmt: skip


def _benchmark(args: argparse.Namespace) -> int:
    from retinart.benchmarks.latency import BenchmarkSettings, benchmark, row_names
    from retinart.benchmarks.latency_report import why_no_report, write_results
    from retinart.benchmarks.latency_tables import report
    from retinart.benchmarks.measures import FEWEST
    from retinart.benchmarks.peers import NAMES
    from retinart.benchmarks.regression import compare_runs, failures, read_baseline, table
    from retinart.engine.files import new_folder

    max_ratio = 1.1 if args.max_ratio is None else args.max_ratio
    if args.max_ratio is not None and args.compare is None:
        raise BadInput("--max-ratio is of a comparison", fix="Give the older one with --compare")
    if not 0 < max_ratio < math.inf:
        raise BadInput(f"max-ratio is {max_ratio}", fix="Give a number above 0, such as 1.1")
    settings = BenchmarkSettings(
        images=args.images,
        annotations=args.annotations,
        imgsz=tuple(args.imgsz),
        batch=tuple(args.batch),
        streams=tuple(args.streams),
        compute=tuple(args.compute),
        peers=NAMES if args.peers == [] else tuple(args.peers or ()),
        checkpoint=args.checkpoint,
        torchvision=args.torchvision,
        num_images=args.num_images,
        repeats=args.repeats,
        threads=args.threads,
    )
    old = None
    if args.compare is not None:
        if args.num_images * args.repeats < FEWEST:
            raise BadInput(
                f"{args.num_images * args.repeats} runs of each model are too few to compare",
                why=f"the median of less than {FEWEST} has no 95% interval",
                fix="Raise --repeats",
            )
        old = read_baseline(args.compare, row_names(args.models, settings))
    with contextlib.ExitStack() as stack:
        if args.out is not None:  # before the work: can it be written?
            stack.enter_context(new_folder(args.out))
            _say_no_report(why_no_report())
        result = benchmark(args.models, settings)
    result["command"] = _command("benchmark", *args.models, **asdict(settings))
    slower: list[str] = []
    if old is not None:
        result["comparison"] = compare_runs(result, old, max_ratio)
        slower = failures(result["comparison"])
    if args.out is not None:
        for path in write_results(args.out, result):
            print(path, file=sys.stderr)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print(report(result))
        if old is not None:
            print(f"\n{table(result['comparison'])}")
    for line in slower:
        print(line, file=sys.stderr)
    return 1 if slower else 0


def _curve(args: argparse.Namespace) -> int:
    from retinart.benchmarks.curve import CurveSettings, measure_curve
    from retinart.benchmarks.curve_report import report, write_results
    from retinart.benchmarks.latency_report import why_no_report
    from retinart.benchmarks.peers import NAMES

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
    _say_no_report(why_no_report())
    result = measure_curve(args.checkpoints, args.out, settings)
    result["command"] = _command("curve", *args.checkpoints, **asdict(settings), out=args.out)
    for path in write_results(args.out, result):
        print(path, file=sys.stderr)
    print(json.dumps(result, indent=1) if args.json else report(result))
    return 0


def _say_no_report(why: str) -> None:
    if why:
        print(f"There will be no report.html, only JSON and CSV. {why}", file=sys.stderr)


def _command(name: str, *positional: Path, **settings: Any) -> str:
    """The command line of a job, with what was left to its defaults written out."""
    words = ["retinart", name, *map(str, positional)]
    for key, value in settings.items():
        if value is not None and value != ():
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{key.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)
