"""`retinart eval`: COCO accuracy of a model, or of two."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from retinart.cli.fields import add_json, add_max_pixels, add_out, describe_command
from retinart.cli.running import add_running, open_detector
from retinart.engine.errors import BadInput


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart eval`."""
    describe_command(
        parser,
        "Measure a model's COCO AP on annotated images. With --against, measure two models, print "
        "their figures side by side, and write the images on which the second one loses most.",
        "retinart eval model.onnx --images images --annotations instances.json",
        "retinart eval model.onnx --against model.int8.onnx --max-drop 0.5 \\",
        "    --images images --annotations instances.json",
    )
    add_running(parser)
    group = parser.add_argument_group("dataset")
    group.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder of the images"
    )
    group.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="FILE",
        help="COCO file with their annotations",
    )
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--against",
        type=Path,
        metavar="MODEL",
        help="a second model to compare with the first; --compute is for the second alone, and the "
        "first is computed in fp32",
    )
    group.add_argument(
        "--max-drop",
        type=float,
        metavar="X",
        help="exit with 1 when the second model's AP is lower by more than X points (default: no "
        "limit)",
    )
    add_out(group, Path("runs/compare"), "folder for the images of --against")
    add_max_pixels(parser)
    add_json(parser)
    parser.set_defaults(extra="eval")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.evaluation.evaluate import evaluate, figures_table

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
    print(json.dumps(result.to_json(), indent=1) if args.json else figures_table(result))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from retinart.engine.accuracy_drop import compare_models, drop_table

    with open_detector(args, compute="fp32") as first, open_detector(args, args.against) as second:
        result = compare_models(
            first,
            second,
            args.annotations,
            args.images,
            out=args.out,
            names=(args.model.name, _name(args.against, args.compute)),
        )
    _say_problems(result.first)
    print(json.dumps(result.to_json(), indent=1) if args.json else drop_table(result))
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
