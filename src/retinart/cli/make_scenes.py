"""`retinart make-scenes`: annotated pictures to train and test on."""

from __future__ import annotations

import argparse
from pathlib import Path

from retinart.cli.fields import add_size, describe_command


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart make-scenes`."""
    from retinart.train.data.settings import SceneSettings

    describe_command(
        parser,
        "Draw objects of several classes over textured backgrounds. DIR gets the pictures in "
        "images/ and their COCO annotations in instances.json. A seed always gives the same "
        "pictures.",
        "retinart make-scenes scenes --num 60 --seed 2",
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="folder to write")
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--num", type=int, default=1000, metavar="N", help="how many to draw (default: %(default)s)"
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="another seed gives other pictures (default: %(default)s)",
    )
    add_size(group, SceneSettings.size, "of a picture")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.train.data.scenes import make_scenes
    from retinart.train.data.settings import SceneSettings

    settings = SceneSettings(size=(args.height, args.width))
    print(make_scenes(args.out, num=args.num, seed=args.seed, settings=settings))
    return 0
