"""`retinart make-scenes`: annotated images to train and test on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart make-scenes` to the parser."""
    scenes = commands.add_parser(
        "make-scenes",
        parents=[common],
        help="generate annotated images to train and test on",
        description="Objects of several classes over textured backgrounds: DIR/images and COCO "
        "annotations in DIR/instances.json, the same for the same seed.",
    )
    scenes.add_argument("out", type=Path, metavar="DIR")
    scenes.add_argument("--num", type=int, default=1000, metavar="N")
    scenes.add_argument("--seed", type=int, default=0)
    scenes.add_argument("--height", type=int, default=256)
    scenes.add_argument("--width", type=int, default=320)
    scenes.set_defaults(run=_make_scenes)


def _make_scenes(args: argparse.Namespace) -> int:
    from retinart.train.data.scenes import make_scenes
    from retinart.train.data.settings import SceneSettings

    settings = SceneSettings(size=(args.height, args.width))
    print(make_scenes(args.out, num=args.num, seed=args.seed, settings=settings))
    return 0
