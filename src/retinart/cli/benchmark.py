"""`retinart benchmark`: milliseconds an image of model files, side by side."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retinart.cli.measuring import COMPUTE_OPTION, add_peers, command_line, say_no_report
from retinart.engine.errors import BadInput


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart benchmark` to the parser."""
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
    benchmark.add_argument("--compute", **COMPUTE_OPTION)
    add_peers(benchmark)
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


def _benchmark(args: argparse.Namespace) -> int:
    from retinart.benchmarks.latency.regression import compare_runs, failures, read_baseline, table
    from retinart.benchmarks.latency.report import why_no_report, write_results
    from retinart.benchmarks.latency.run import BenchmarkSettings, benchmark, row_names
    from retinart.benchmarks.latency.tables import report
    from retinart.benchmarks.peers.find import NAMES
    from retinart.benchmarks.timing.statistics import FEWEST
    from retinart.engine.common.files import new_folder

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
            say_no_report(why_no_report())
        result = benchmark(args.models, settings)
    result["command"] = command_line("benchmark", *args.models, **asdict(settings))
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
