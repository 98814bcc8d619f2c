"""The paper's grid against torchvision eager: R50 and R101 at 400 to 800, in each precision.

    python -m retinart.benchmarks.grid --images DIR --prepare-only
    python -m retinart.benchmarks.grid --images DIR --out runs/paper_grid

The first command makes weights, exports and INT8 files, which is slow and needs no quiet machine.
The second one times each backbone and scale: FP32, INT8, both with bf16 where the CPU has it, and
torchvision, in turn, image by image. Finished steps are kept, so a stopped run goes on. With
--report-only nothing is timed, and the results are written again from the last timings.

Weights are random, as time does not depend on them. Their scores are scaled on a real image, so
that NMS has about as many candidates as a trained network gives it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from retinart.benchmarks.grid.points import Grid
from retinart.benchmarks.grid.report import report, write_results
from retinart.benchmarks.grid.steps import GridSettings, GridSteps
from retinart.benchmarks.peers import torchvision_shim
from retinart.benchmarks.program import new_parser, run
from retinart.engine.common.folders import new_folder
from retinart.engine.common.typed_json import to_json


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, measure, write. Returns the exit code."""
    return run(_work, _parser(), argv)


def _work(args: argparse.Namespace) -> None:
    values: dict[str, Any] = {f.name: getattr(args, f.name) for f in fields(GridSettings)}
    values |= {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
    settings = GridSettings(**values)
    pairs = list(itertools.product(settings.backbones, settings.imgsz))
    if args.only == "report":
        steps = GridSteps(settings)
        timings = [steps.kept_timing(*pair) for pair in pairs]
    else:
        torchvision_shim.check_installed(settings.torchvision)
        with new_folder(settings.work):
            steps = GridSteps(settings)
        for pair in pairs:
            steps.files(*pair)
        if args.only == "prepare":
            print(f"{settings.work} holds what is to be timed", file=sys.stderr)
            return
        timings = [steps.timing(*pair) for pair in pairs]
    found = Grid(timings=tuple(timings), command=args.command.replace(" --report-only", ""))
    for path in [] if args.out is None else write_results(args.out, found):
        print(path, file=sys.stderr)
    print(json.dumps(to_json(found), indent=1) if args.json else report(found))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("benchmarks.grid", __doc__)
    defaults = GridSettings(images="")
    add = parser.add_argument
    add("--images", required=True, help="folder, file or glob; the first 4:3 ones are taken")
    add("--backbones", nargs="+", help="as torchvision calls them")
    add("--imgsz", type=int, nargs="+", help="shorter sides")
    add("--num-images", type=int, help="images to time on")
    add("--repeats", type=int, help="runs of every image")
    add("--threads", type=int, help="threads of each engine")
    add("--calibration-num", type=int, help="images for INT8's ranges")
    add("--num-classes", type=int, help="of the network")
    add("--work", type=Path, help="folder of what is made")
    add("--torchvision", type=Path, metavar="DIR", help="folder that holds torchvision")
    parser.set_defaults(**vars(defaults))
    only = parser.add_mutually_exclusive_group().add_argument
    only("--prepare-only", dest="only", action="store_const", const="prepare",
         help="make what is to be timed, and stop")  # fmt: skip
    only("--report-only", dest="only", action="store_const", const="report",
         help="time nothing, and take the last timings")  # fmt: skip
    add("--out", type=Path, help="write NAME.md, .json, .csv and .html, given without a suffix")
    add("--json", action="store_true", help="for machines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
