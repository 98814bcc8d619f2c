"""`retinart data check`: what is wrong with a dataset, and whether anchors fit it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from retinart.engine.errors import BadInput


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart data` to the parser."""
    data = commands.add_parser("data", help="look at a dataset before training on it")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        parents=[common],
        help="errors, sizes, classes, and whether a model's anchors fit",
        description="Lists what is wrong with COCO annotations and their images, a line for each "
        "kind: what is dropped, what is kept. Exits 1 when training would stop.",
    )
    check.add_argument("--images", type=Path, required=True, metavar="DIR")
    check.add_argument("--annotations", type=Path, required=True, metavar="FILE")
    check.add_argument("--model", default="tiny", help="whose anchors are tried")
    check.add_argument("--height", type=int, default=256, help="of the network input")
    check.add_argument("--width", type=int, default=320)
    check.add_argument(
        "--no-open", action="store_true", help="do not open the images, only see that they exist"
    )
    check.add_argument("--workers", type=int, default=2)
    check.add_argument("--json", action="store_true", help="for machines")
    check.set_defaults(run=_check, extra="train")


def _check(args: argparse.Namespace) -> int:
    from retinart.train.data.check import load_checked
    from retinart.train.data.report import describe, table
    from retinart.train.model.presets import preset

    for path in (args.annotations, args.images):
        if not path.exists():
            raise BadInput(f"there is no {path}", fix="Check the path")
    size = (args.height, args.width)
    if min(size) < 32 or args.height % 32 or args.width % 32:
        raise BadInput(
            f"a network input of {args.height}x{args.width} pixels cannot be",
            fix="Give multiples of 32, from 32 on",
        )
    preset(args.model, 1)  # its error is the user's, and not the data's
    try:
        dataset = load_checked(
            args.annotations, args.images, workers=args.workers, open_images=not args.no_open
        )
    except BadInput as error:
        stopped = {"stops": str(error)}
        print(json.dumps(stopped, indent=1) if args.json else f"training would stop: {error}")
        return 1
    report = {
        "stops": None,
        **describe(dataset, preset(args.model, len(dataset.classes)), size),
    }
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    first, *problems = dataset.summary()
    print("\n".join([first, "", table(report), "", *problems, "nothing stops training"]))
    return 0
