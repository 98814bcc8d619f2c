"""`retinart benchmark`: milliseconds an image of model files, side by side."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

from retinart.cli.fields import (
    ANNOTATION_FORMS,
    add_json,
    add_max_pixels,
    add_overwrite,
    describe_command,
    options_of,
    record_of,
)
from retinart.cli.keeping import add_keeping, keeping, rules_given
from retinart.cli.measuring import add_peers, add_runs, command_line, say_no_report, wanted_peers
from retinart.engine.errors import BadInput

_MAX_RATIO = 1.1


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart benchmark`."""
    from retinart.benchmarks.timing.settings import BenchmarkSettings

    describe_command(
        parser,
        "Time model files on the same images, in turn, each in a process of its own, from a "
        "decoded frame to final boxes. The others are compared with the first file.",
        "retinart benchmark model.onnx model.int8.onnx --images images --out runs/benchmark",
        "retinart benchmark model.onnx --images images --compare runs/benchmark/benchmark.json",
    )
    parser.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="MODEL",
        help="an ONNX file of retinart, or an engine",
    )
    add = options_of(parser, BenchmarkSettings, "images")
    add(
        "images",
        "folder, file or glob of real images",
        otherwise="drawn scenes, on which NMS has other work than in use",
        metavar="SOURCE",
    )
    add(
        "annotations",
        f"{ANNOTATION_FORMS}, of the folder that --images is; adds each model's AP",
        otherwise="measure no AP",
    )
    add = options_of(parser, BenchmarkSettings, "runs")
    add_runs(add)
    add(
        "imgsz",
        "shorter sides, for files that were exported with --dynamic; a row for each of these",
        otherwise="the file's own",
    )
    add("batch", "images in a call; a row for each of these")
    add("streams", "calls at once, each from a thread of its own; a row for each of these")
    add = options_of(parser, BenchmarkSettings, "peers")
    add_peers(add)
    add(
        "checkpoint",
        "checkpoint that the first model was exported from, for peers that run in PyTorch",
        otherwise="leave these peers out",
    )
    add_keeping(parser.add_argument_group("detections"))
    group = parser.add_argument_group("results")
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for benchmark.json, benchmark.csv and report.html; it must not hold the "
        "results of another run (default: print only)",
    )
    add_overwrite(group)
    group.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="benchmark.json of an earlier run; print the ratio of new to old times by model and "
        "stage. Compare a file with the old file of the same content, or else of the same name",
    )
    group.add_argument(
        "--max-ratio",
        type=float,
        metavar="X",
        help="with --compare, exit with 1 when the total, or a stage with at least 5%% of it, "
        "takes more than X times as long as in the earlier run, with its whole 95%% interval above "
        f"X (default: {_MAX_RATIO})",
    )
    add_max_pixels(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.benchmarks.latency.regression import (
        compare_runs,
        failures,
        read_baseline,
        rows_to_come,
        verdict,
    )
    from retinart.benchmarks.latency.report import RESULT, write_results
    from retinart.benchmarks.latency.run import benchmark
    from retinart.benchmarks.latency.tables import report
    from retinart.benchmarks.timing.settings import BenchmarkSettings
    from retinart.benchmarks.timing.statistics import FEWEST
    from retinart.engine.common.folders import results_folder
    from retinart.engine.common.html_page import why_no_page
    from retinart.engine.common.typed_json import to_json

    max_ratio = _MAX_RATIO if args.max_ratio is None else args.max_ratio
    if args.max_ratio is not None and args.compare is None:
        raise BadInput("--max-ratio needs a comparison", fix="Give the older run with --compare")
    if not 0 < max_ratio < math.inf:
        raise BadInput(f"`max_ratio` is {max_ratio}", fix="Give a number above 0, such as 1.1")
    settings = record_of(BenchmarkSettings, args, peers=wanted_peers(args.peers), **keeping(args))
    given = {k: v for k, v in asdict(settings).items() if k not in ("conf", "keep")}
    old = None
    if args.compare is not None:
        if args.num_images * args.repeats < FEWEST:
            raise BadInput(
                f"{args.num_images * args.repeats} runs of each model are too few to compare",
                why=f"the median of less than {FEWEST} has no 95% interval",
                fix="Raise --repeats",
            )
        old = read_baseline(args.compare, rows_to_come(args.models, settings))
    with contextlib.ExitStack() as stack:
        if args.out is not None:  # before the work: can it be written?
            kept = results_folder(args.out, args.out, (RESULT,), overwrite=args.overwrite)
            stack.enter_context(kept)
            say_no_report(why_no_page())
        result = benchmark(args.models, settings)
    result = replace(
        result,
        command=command_line("benchmark", *args.models, **given, **rules_given(args), out=args.out),
        comparison=None if old is None else compare_runs(result, old, max_ratio),
    )
    slower = [] if result.comparison is None else failures(result.comparison)
    if args.out is not None:
        for path in write_results(args.out, result):
            print(path, file=sys.stderr)
    print(json.dumps(to_json(result), indent=1) if args.json else report(result))
    for line in slower:
        print(line, file=sys.stderr)
    if result.comparison is not None:
        print(verdict(result.comparison), file=sys.stderr)
    return 1 if slower else 0
