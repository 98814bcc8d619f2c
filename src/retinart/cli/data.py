"""`retinart data check`: what is wrong with a dataset, and whether anchors fit it."""

from __future__ import annotations

import argparse
import json

from retinart.cli.fields import add_json, add_max_pixels, add_size, describe_command, options_of
from retinart.engine.common.option_names import with_flags
from retinart.engine.errors import BadInput


def fill(parser: argparse.ArgumentParser) -> None:
    """Add `check` and its options to `retinart data`."""
    from retinart.train.settings import DEFAULT_MODEL, TrainSettings

    example = "retinart data check --images images --annotations instances.json"
    describe_command(parser, "Look at a dataset before you train on it.", example)
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
        "List what is wrong with COCO annotations and their images, a line for each kind of "
        "problem, and say what a training would leave out. The command exits with 1 when a "
        "training would stop.",
        example,
    )
    add = options_of(check, TrainSettings, "dataset")
    add("images", "folder of the images", metavar="DIR")
    add("annotations", "COCO file with their annotations")
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
    parser.set_defaults(extra="train", options=check)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.train.data.check import load_checked
    from retinart.train.data.report import dataset_table, describe_dataset
    from retinart.train.model.presets import preset
    from retinart.train.settings import DEFAULT_MODEL

    for path in (args.annotations, args.images):
        if not path.exists():
            raise BadInput(f"there is no {path}", fix="Check the path")
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
