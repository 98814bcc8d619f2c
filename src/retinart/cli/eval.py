"""`retinart eval`: COCO accuracy of a model, or of two."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from retinart.cli.running import open_detector, running_options
from retinart.engine.errors import BadInput


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart eval` to the parser."""
    running = running_options()
    evaluate = commands.add_parser(
        "eval", parents=[running, common], help="COCO accuracy on annotated images"
    )
    evaluate.add_argument("--images", type=Path, required=True, metavar="DIR")
    evaluate.add_argument("--annotations", type=Path, required=True, metavar="FILE")
    evaluate.add_argument(
        "--against",
        type=Path,
        metavar="MODEL",
        help="compare this model with the first: tables side by side, the worst images as pictures",
    )
    evaluate.add_argument(
        "--max-drop",
        type=float,
        metavar="D",
        help="exit 1 when the second model's AP is lower by more than D points",
    )
    evaluate.add_argument(
        "--out", type=Path, default=Path("runs/compare"), metavar="DIR", help="of --against"
    )
    evaluate.add_argument("--json", action="store_true", help="for machines")
    evaluate.set_defaults(run=_eval, extra="eval")


def _eval(args: argparse.Namespace) -> int:
    from retinart.engine.evaluation.evaluate import evaluate, table

    if not args.images.is_dir():
        raise BadInput(
            f"there is no folder {args.images}", fix="Give the annotations' image folder"
        )
    if args.against is not None:
        return _compare(args)
    if args.max_drop is not None:
        raise BadInput("--max-drop compares two models", fix="Give the second with --against")
    with open_detector(args) as detector:
        result = evaluate(detector, args.annotations, args.images)
    _say_problems(result)
    print(json.dumps(result.to_json(), indent=1) if args.json else table(result))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from retinart.benchmarks.accuracy_drop import compare, table, to_json

    with open_detector(args, compute="fp32") as first, open_detector(args, args.against) as second:
        result = compare(
            first,
            second,
            args.annotations,
            args.images,
            out=args.out,
            names=(args.model.name, _name(args.against, args.compute)),
        )
    _say_problems(result.first)
    print(json.dumps(to_json(result), indent=1) if args.json else table(result))
    for path in result.outputs:
        print(path, file=sys.stderr)
    if args.max_drop is None:
        return 0
    failed = result.drop > args.max_drop
    print(
        f"{args.against} loses {result.drop:.2f} AP, and {args.max_drop} "
        f"{'was allowed' if failed else 'are allowed'}",
        file=sys.stderr,
    )
    return 1 if failed else 0


def _name(model: Path, compute: str) -> str:
    return model.name if compute == "fp32" else f"{model.name} in {compute}"


def _say_problems(result: Any) -> None:
    for line in result.problems:
        print(line, file=sys.stderr)
    for path, why in result.skipped:
        print(f"skipped {path}: {why}", file=sys.stderr)
