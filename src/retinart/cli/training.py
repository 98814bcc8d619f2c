"""Commands around training: make-scenes, train."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add this module's commands to the parser."""
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

    train = commands.add_parser(
        "train", parents=[common], help="train a RetinaNet on COCO-format data"
    )
    train.add_argument("--images", type=Path, required=True, metavar="DIR")
    train.add_argument("--annotations", type=Path, required=True, metavar="FILE")
    train.add_argument("--model", default="tiny", help="backbone: tiny, resnet18, resnet50, ...")
    train.add_argument("--name", default="exp", help="folder below --out")
    train.add_argument("--out", type=Path, default=Path("runs/train"), metavar="DIR")
    train.add_argument("--height", type=int, default=256)
    train.add_argument("--width", type=int, default=320)
    train.add_argument("--epochs", type=int, default=12)
    train.add_argument("--batch", type=int, default=16)
    train.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    train.add_argument("--lr", type=float, default=0.02)
    train.add_argument("--weight-decay", type=float, help="default 1e-4 (sgd), 0.05 (adamw)")
    train.add_argument("--beta", type=float, default=1 / 9, help="of the smooth L1 box loss")
    train.add_argument("--box-weight", type=float, default=1.0, help="factor of the box loss")
    train.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--workers", type=int, default=2)
    train.add_argument("--threads", type=int)
    train.add_argument("--device", default="cpu")
    train.set_defaults(run=_train, extra="train")


def _make_scenes(args: argparse.Namespace) -> int:
    from retinart.train.scenes import SceneSettings, make_scenes

    settings = SceneSettings(size=(args.height, args.width))
    print(make_scenes(args.out, num=args.num, seed=args.seed, settings=settings))
    return 0


def _train(args: argparse.Namespace) -> int:
    from retinart.train.criterion import LossSettings
    from retinart.train.trainer import TrainSettings, train

    settings = TrainSettings(
        annotations=args.annotations,
        images=args.images,
        name=args.name,
        runs=args.out,
        model=args.model,
        size=(args.height, args.width),
        epochs=args.epochs,
        batch_size=args.batch,
        optimizer=args.optimizer,
        lr=args.lr,
        weight_decay=args.weight_decay,
        precision=args.precision,
        loss=LossSettings(beta=args.beta, box_weight=args.box_weight),
        seed=args.seed,
        workers=args.workers,
        threads=args.threads,
        device=args.device,
    )
    print(train(settings, command=shlex.join(["retinart", *sys.argv[1:]])))
    return 0
