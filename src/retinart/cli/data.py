"""`retinart data`: what is wrong with a dataset, and other forms of annotations as COCO."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from retinart.cli.fields import (
    ANNOTATION_FORMS,
    add_file,
    add_json,
    add_max_pixels,
    add_size,
    describe_command,
    options_of,
)
from retinart.engine.common.option_names import with_flags
from retinart.engine.errors import BadInput


def fill(parser: argparse.ArgumentParser) -> None:
    """Add `check` and `convert` with their options to `retinart data`."""
    from retinart.train.settings import DEFAULT_MODEL, TrainSettings

    example = "retinart data check --images images --annotations instances.json"
    describe_command(parser, "Look at a dataset, or write its annotations in COCO's form.", example)
    actions = parser.add_subparsers(
        prog=parser.prog, dest="action", required=True, metavar="ACTION", title="actions"
    )
    check = actions.add_parser(
        "check",
        help="list errors, sizes and classes, and how well anchors fit",
        formatter_class=parser.formatter_class,
    )
    describe_command(
        check,
        "List what is wrong with annotations and their images, a line for each kind of "
        "problem, and say what a training would leave out. The command exits with 1 when a "
        "training would stop.",
        example,
    )
    add = options_of(check, TrainSettings, "dataset")
    add("images", "folder of the images", metavar="DIR")
    add("annotations", f"{ANNOTATION_FORMS}, with their annotations")
    add(
        "check_images",
        "only see that the image files exist, and do not open them",
        flag="--no-open",
    )
    add("workers", "threads that open images")
    group = check.add_argument_group("model")
    add = options_of(group, TrainSettings)
    add(
        "model",
        "model whose anchors are compared with the boxes",
        otherwise=DEFAULT_MODEL,
        metavar="NAME",
    )
    add_size(group, TrainSettings.size, "of the network's input")
    add_max_pixels(check)
    add_json(check)
    check.set_defaults(extra="eval", options=check)
    _fill_convert(actions, parser)


def _fill_convert(actions: Any, parser: argparse.ArgumentParser) -> None:
    convert = actions.add_parser(
        "convert",
        help="write annotations of YOLO or Pascal VOC as a COCO file",
        formatter_class=parser.formatter_class,
    )
    describe_command(
        convert,
        "Write the annotations of YOLO or Pascal VOC as a COCO file, after the checks that eval "
        "makes. What is wrong is listed, a line for each kind.",
        "retinart data convert data.yaml --images images/val -o val.json",
        "retinart data convert Annotations --images JPEGImages -o instances.json",
    )
    convert.add_argument("annotations", type=Path, help="YOLO's or Pascal VOC's, as for eval")
    convert.add_argument("--images", type=Path, required=True, metavar="DIR", help="their images")
    add_file(convert, "instances.json", "the COCO file to write")
    convert.set_defaults(extra="eval", options=convert)
    for action in actions.choices.values():
        action.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # else it would undo the one before the action
            help="show Python's traceback after an error",
        )


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    for path in (args.annotations, args.images):
        if not path.exists():
            raise BadInput(f"there is no {path}", fix="Check the path")
    return _convert(args) if args.action == "convert" else _check(args)


def _convert(args: argparse.Namespace) -> int:
    from retinart.engine.evaluation.annotation_files import read_annotations, write_coco
    from retinart.engine.evaluation.coco import load_coco
    from retinart.engine.evaluation.problems import Problems

    dataset = load_coco(args.annotations, args.images)
    print("\n".join(dataset.summary()), file=sys.stderr)
    write_coco(read_annotations(args.annotations, args.images, Problems()), args.out)
    print(args.out)
    return 0


def _check(args: argparse.Namespace) -> int:
    from retinart.train.data.check import load_checked
    from retinart.train.data.report import dataset_table, describe_dataset
    from retinart.train.model.presets import preset
    from retinart.train.settings import DEFAULT_MODEL

    size = (args.height, args.width)
    if min(size) < 32 or args.height % 32 or args.width % 32:
        raise BadInput(
            f"the network's input cannot be {args.height}x{args.width} pixels",
            fix="Give multiples of 32, from 32 on",
        )
    model = args.model or DEFAULT_MODEL
    preset(model, 1)  # a wrong name is the user's error, not the data's
    try:
        dataset = load_checked(
            args.annotations, args.images, workers=args.workers, open_images=args.check_images
        )
    except BadInput as error:
        stopped = {"stops": with_flags(str(error), args.options)}
        print(
            json.dumps(stopped, indent=1)
            if args.json
            else f"training would stop: {stopped['stops']}"
        )
        return 1
    report = {
        "stops": None,
        **describe_dataset(dataset, preset(model, len(dataset.classes)), size),
    }
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    first, *problems = dataset.summary()
    print("\n".join([first, "", dataset_table(report), "", *problems, "nothing stops training"]))
    return 0
