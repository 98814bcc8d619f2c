"""`retinart train`: a RetinaNet learns from COCO-format data."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinart.engine.errors import BadInput

if TYPE_CHECKING:
    from retinart.train.settings import TrainSettings


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart train` to the parser."""
    train = commands.add_parser(
        "train",
        parents=[common],
        help="train a RetinaNet on COCO-format data",
        description="Train on one device, or on many: torchrun --nproc-per-node N -m retinart "
        "train ... The run is in --out/--name; --resume goes on with one that was stopped.",
    )
    train.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with this run; takes no other settings"
    )
    data = train.add_argument_group("data")
    data.add_argument("--images", type=Path, metavar="DIR")
    data.add_argument("--annotations", type=Path, metavar="FILE")
    data.add_argument(
        "--no-check-images",
        action="store_true",
        help="do not decode every image beforehand, which takes as long as an epoch's loading",
    )
    data.add_argument("--val-images", type=Path, metavar="DIR", help="AP is measured on these")
    data.add_argument("--val-annotations", type=Path, metavar="FILE")
    data.add_argument("--eval-every", type=int, default=1, metavar="EPOCHS")
    data.add_argument("--workers", type=int, default=2, help="threads that load images")
    model = train.add_argument_group("model")
    model.add_argument("--model", help="backbone: tiny (default), resnet18, resnet50, ...")
    model.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of the model that differs from the preset's, such as anchor_sizes",
    )
    model.add_argument("--weights", type=Path, metavar="CKPT", help="a checkpoint to fine-tune")
    model.add_argument(
        "--backbone-weights", type=Path, metavar="FILE", help="ImageNet weights, torchvision's"
    )
    model.add_argument("--norm", choices=("batch", "frozen", "group"), default="batch")
    model.add_argument("--prior", type=float, default=0.01, help="initial probability of a class")
    images = train.add_argument_group("images")
    images.add_argument("--height", type=int, default=256)
    images.add_argument("--width", type=int, default=320)
    images.add_argument(
        "--multiscale", type=float, nargs=2, default=[1.0, 1.0], metavar=("LOW", "HIGH")
    )
    images.add_argument("--aspect-batches", action="store_true", help="tall images by themselves")
    images.add_argument("--flip", type=float, default=0.5, help="probability")
    images.add_argument("--flip-vertical", type=float, default=0.0, help="probability")
    images.add_argument("--color", type=float, default=0.2, help="strength of the jitter")
    images.add_argument("--zoom", type=float, nargs=2, default=[0.8, 1.25], metavar=("LOW", "HIGH"))
    images.add_argument(
        "--min-visible",
        type=float,
        default=0.35,
        help="an object of which a zoom leaves less than this share is ignored",
    )
    loop = train.add_argument_group("loop")
    loop.add_argument("--epochs", type=int, default=12)
    loop.add_argument("--batch", type=int, default=16, help="images a step, over all processes")
    loop.add_argument("--accumulate", type=int, default=1, metavar="PARTS")
    loop.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    loop.add_argument("--lr", type=float, default=0.02)
    loop.add_argument("--schedule", choices=("cosine", "step"), default="cosine")
    loop.add_argument(
        "--milestones",
        type=float,
        nargs="*",
        default=[2 / 3, 8 / 9],
        metavar="SHARE",
        help="shares of the run from which on the step schedule takes a tenth; default 2/3 and 8/9",
    )
    loop.add_argument("--warmup", type=int, default=200, metavar="STEPS")
    loop.add_argument("--momentum", type=float, default=0.9, help="of SGD")
    loop.add_argument("--weight-decay", type=float, help="default 1e-4 (sgd), 0.05 (adamw)")
    loop.add_argument(
        "--max-grad-norm", type=float, default=10.0, help="longer gradients are cut; 0: no limit"
    )
    loop.add_argument("--ema", type=float, default=0.998, help="decay of the weights' average")
    loop.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    loop.add_argument("--seed", type=int, default=0)
    loss = train.add_argument_group("loss")
    loss.add_argument("--cls-loss", choices=("focal", "ce", "ohem", "ohem_1to3"), default="focal")
    loss.add_argument("--alpha", type=float, default=0.25, help="of the focal loss")
    loss.add_argument("--gamma", type=float, default=2.0, help="of the focal loss")
    loss.add_argument(
        "--ohem-batch", type=int, default=128, metavar="N", help="hard anchors of an image"
    )
    loss.add_argument(
        "--ohem-nms", type=float, default=0.5, metavar="IOU", help="between hard anchors"
    )
    loss.add_argument("--box-loss", choices=("smooth_l1", "l1", "giou"), default="smooth_l1")
    loss.add_argument("--beta", type=float, default=1 / 9, help="of the smooth L1 box loss")
    loss.add_argument("--box-weight", type=float, default=1.0, help="factor of the box loss")
    loss.add_argument(
        "--fg-iou-thresh", type=float, default=0.5, help="from this IoU on an anchor is positive"
    )
    loss.add_argument(
        "--bg-iou-thresh",
        type=float,
        default=0.4,
        help="below this IoU an anchor is background; between the two it is ignored",
    )
    loss.add_argument(
        "--no-low-quality-matches",
        action="store_true",
        help="objects that no anchor reaches are not learned by the nearest ones either",
    )
    run = train.add_argument_group("run")
    run.add_argument("--name", default="exp", help="folder below --out")
    run.add_argument("--out", type=Path, default=Path("runs/train"), metavar="DIR")
    run.add_argument("--threads", type=int)
    run.add_argument("--device", default="cpu")
    train.set_defaults(run=partial(_train, train), extra="train")


def _train(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from retinart.train.run_folder import read_settings
    from retinart.train.trainer import train

    command = shlex.join(["retinart", *sys.argv[1:]])
    if args.resume is not None:
        _refuse_others(parser, args)
        print(train(read_settings(args.resume), command=command, resume=True))
        return 0
    if args.images is None or args.annotations is None:
        raise BadInput(
            "there is nothing to train on", fix="Give --images and --annotations, or --resume DIR"
        )
    print(train(_settings(args), command=command))
    return 0


def _refuse_others(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """A run that goes on keeps its settings: any that is given would be ignored."""
    plain = vars(parser.parse_args([f"--resume={args.resume}"]))
    others = [
        f"--{name.replace('_', '-')}"
        for name, value in plain.items()
        if name != "debug" and getattr(args, name) != value
    ]
    if others:
        raise BadInput(
            f"--resume does not go with {', '.join(others)}",
            why="a run goes on with the settings that it began with",
            fix="Leave them out, or start a new run, from its weights by --weights",
        )


def _settings(args: argparse.Namespace) -> TrainSettings:
    from retinart.engine.model.variant import parse_fields
    from retinart.train.data.settings import Augmentation
    from retinart.train.loss.settings import LossSettings
    from retinart.train.model.presets import preset
    from retinart.train.settings import TrainSettings

    return TrainSettings(
        annotations=args.annotations,
        images=args.images,
        check_images=not args.no_check_images,
        val_annotations=args.val_annotations,
        val_images=args.val_images,
        eval_every=args.eval_every,
        name=args.name,
        runs=args.out,
        model=args.model,
        overrides=parse_fields(preset(args.model or "tiny", 1), args.set),
        prior=args.prior,
        norm=args.norm,
        backbone_weights=args.backbone_weights,
        weights=args.weights,
        size=(args.height, args.width),
        multiscale=tuple(args.multiscale),
        aspect_batches=args.aspect_batches,
        epochs=args.epochs,
        batch_size=args.batch,
        accumulate=args.accumulate,
        optimizer=args.optimizer,
        lr=args.lr,
        schedule=args.schedule,
        milestones=tuple(args.milestones),
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        warmup_steps=args.warmup,
        max_grad_norm=args.max_grad_norm,
        ema_decay=args.ema,
        precision=args.precision,
        loss=LossSettings(
            cls_loss=args.cls_loss,
            alpha=args.alpha,
            gamma=args.gamma,
            ohem_batch=args.ohem_batch,
            ohem_nms=args.ohem_nms,
            box_loss=args.box_loss,
            beta=args.beta,
            box_weight=args.box_weight,
            fg_iou_thresh=args.fg_iou_thresh,
            bg_iou_thresh=args.bg_iou_thresh,
            allow_low_quality_matches=not args.no_low_quality_matches,
        ),
        augmentation=Augmentation(
            flip=args.flip,
            flip_vertical=args.flip_vertical,
            color=args.color,
            scale=tuple(args.zoom),
            min_visible=args.min_visible,
        ),
        seed=args.seed,
        workers=args.workers,
        threads=args.threads,
        device=args.device,
    )
