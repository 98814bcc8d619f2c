"""`retinart train`: a RetinaNet learns from COCO-format data."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retinart.cli.fields import (
    ANNOTATION_FORMS,
    add_max_pixels,
    add_size,
    describe_command,
    options_of,
    record_of,
)
from retinart.engine.errors import BadInput

if TYPE_CHECKING:
    from retinart.train.settings import TrainSettings


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart train`."""
    describe_command(
        parser,
        "Train on one device, or on several with `torchrun --nproc-per-node N -m retinart train`. "
        "The folder of the run is --out/--name. `retinart export` reads its best.pt and last.pt.",
        "retinart train --images images --annotations train.json --val-images images \\",
        "    --val-annotations val.json --model resnet18 --epochs 72 --name cells",
        "retinart train --resume runs/train/cells",
    )
    _add_run(parser)
    _add_data(parser)
    _add_model(parser)
    _add_pictures(parser)
    _add_loop(parser)
    _add_loss(parser)
    parser.set_defaults(extra="train")
    add_max_pixels(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    from retinart.train.settings import TrainSettings

    add = options_of(parser, TrainSettings, "run")
    add("name", "name of the run, and of its folder below --out")
    add("runs", "folder of all runs", flag="--out", metavar="DIR")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with the run in this folder after its last whole epoch; takes no other options",
    )
    add("device", "device to train on, such as cpu or cuda:0; cuda gives each process a GPU")
    add("threads", "threads of PyTorch", otherwise="as PyTorch chooses")
    add("seed", "seed of the first weights, the order of the images and their augmentation")


def _add_data(parser: argparse.ArgumentParser) -> None:
    from retinart.train.settings import TrainSettings

    add = options_of(parser, TrainSettings, "data")
    add(
        "images",
        "folder of the images to train on; a new run needs it",
        metavar="DIR",
        required=False,
    )
    add(
        "annotations",
        f"{ANNOTATION_FORMS}, with their annotations; a new run needs it",
        required=False,
    )
    add(
        "check_images",
        "do not open every image before the training; opening takes as long as an epoch's loading, "
        "and leaves out images that cannot be read",
    )
    add(
        "val_images",
        "folder of the images to measure AP on",
        otherwise="measure no AP",
        metavar="DIR",
    )
    add("val_annotations", f"{ANNOTATION_FORMS}, with their annotations", otherwise="measure no AP")
    add("eval_every", "epochs between two measurements of AP")
    add("workers", "threads that load images")


def _add_model(parser: argparse.ArgumentParser) -> None:
    from retinart.train.settings import DEFAULT_MODEL, TrainSettings

    group = parser.add_argument_group("model")
    add = options_of(group, TrainSettings)
    add(
        "model",
        "backbone: tiny, resnet18, resnet34, resnet50, resnet101 or resnet152",
        otherwise=f"the one of --weights, or {DEFAULT_MODEL}",
        metavar="NAME",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="set a field of the model that differs from its preset, such as head_norm_groups=16; "
        "an unknown FIELD prints the list; may be repeated",
    )
    add(
        "weights",
        "checkpoint of `retinart train` to start from; classes of other names start afresh",
        otherwise="start from random weights",
    )
    add(
        "backbone_weights",
        "file with ImageNet weights under torchvision's names, for the backbone alone",
        otherwise="start from random weights",
    )
    add(
        "norm",
        "the backbone's norms: batch norms that learn, batch norms that keep the weights they come "
        "with, or group norms",
    )
    add(
        "quantize",
        "record of `retinart calibrate` of --weights; the training rounds as the file will, see "
        "`retinart calibrate --tuned`",
        otherwise="round nothing",
    )
    add("prior", "probability of each class that the model starts from")


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    from retinart.train.data.settings import Augmentation
    from retinart.train.settings import TrainSettings

    group = parser.add_argument_group("pictures")
    add_size(group, TrainSettings.size, "of the network's input")
    add = options_of(group, TrainSettings)
    add(
        "multiscale",
        "range of factors of the input's size; each step draws one",
        metavar=("LOW", "HIGH"),
    )
    add("aspect_batches", "put images that are taller than wide into batches of their own, turned")
    add = options_of(group, Augmentation)
    add("flip", "probability that an image is mirrored, left to right")
    add("flip_vertical", "probability that an image is turned upside down")
    add("color", "strength of the jitter of brightness, contrast and colours, from 0 to 1")
    add(
        "scale",
        "range of the zoom: below 1 the image is smaller, above 1 a part of it is cut out",
        flag="--zoom",
        metavar=("LOW", "HIGH"),
    )
    add("min_visible", "share of an object that must be left after a cut, or it is ignored")


def _add_loop(parser: argparse.ArgumentParser) -> None:
    from retinart.train.settings import TrainSettings

    add = options_of(parser, TrainSettings, "loop")
    add("epochs", "how many times the training goes through the images")
    add("batch_size", "images of a step, over all processes", flag="--batch")
    add("accumulate", "parts that each process splits its share of a step into, to save memory")
    add("optimizer", "sgd is the paper's; adamw learns faster from random weights")
    add("lr", "highest learning rate, reached after --warmup")
    add("schedule", "how the learning rate falls: as a cosine to 0, or to a tenth at --milestones")
    add(
        "milestones",
        "shares of the run after which the step schedule takes a tenth",
        otherwise="2/3 8/9",
        nargs="*",
    )
    add("warmup_steps", "steps in which the learning rate rises from 0 to --lr", flag="--warmup")
    add("momentum", "momentum of sgd")
    add("weight_decay", "weight decay", otherwise="1e-4 with sgd, 0.05 with adamw")
    add("max_grad_norm", "length to which longer gradients are cut; 0 sets no limit")
    add(
        "ema_decay",
        "decay of the moving average of the weights, which is saved; 0 saves the last weights",
        flag="--ema",
    )
    add("precision", "type that the network computes in; weights and losses stay float32")


def _add_loss(parser: argparse.ArgumentParser) -> None:
    from retinart.train.loss.settings import LossSettings

    add = options_of(parser, LossSettings, "loss")
    add(
        "cls_loss",
        "class loss: focal; cross entropy (ce); cross entropy of each image's hardest anchors "
        "(ohem), or of three negatives for each positive of them (ohem_1to3)",
    )
    add("alpha", "weight of the positive anchors in the focal loss")
    add("gamma", "focusing parameter of the focal loss")
    add("ohem_batch", "hard anchors that ohem takes of an image")
    add("ohem_nms", "IoU above which a hard anchor suppresses another one")
    add("box_loss", "box loss: smooth L1 or L1 of the coded boxes, or GIoU of the boxes")
    add("beta", "error at which smooth L1 turns from a square to a line")
    add("box_weight", "factor of the box loss")
    add("fg_iou_thresh", "IoU with an object from which on an anchor is positive")
    add("bg_iou_thresh", "IoU below which an anchor is background; in between it is ignored")
    add(
        "allow_low_quality_matches",
        "leave out objects that no anchor overlaps by --fg-iou-thresh; without the flag their best "
        "anchors learn them",
        flag="--no-low-quality-matches",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.train.settings import read_settings

    if args.resume is not None:
        _refuse_others(args)
        settings = read_settings(args.resume)
    elif args.images is None or args.annotations is None:
        raise BadInput(
            "there is nothing to train on", fix="Give --images and --annotations, or --resume DIR"
        )
    else:
        settings = settings_of(args)
        settings.check_new()
        for path in settings.inputs:
            if not path.exists():
                raise BadInput(f"there is no {path}", fix="Check the path")
        settings = with_fields(settings, args.set)

    from retinart.train.trainer import train  # it imports PyTorch, which takes seconds

    command = shlex.join(["retinart", *sys.argv[1:]])
    train(settings, command=command, resume=args.resume is not None)
    print(settings.weights_to_export)
    return 0


def settings_of(args: argparse.Namespace) -> TrainSettings:
    """The settings that the options say, but for --set."""
    from retinart.train.data.settings import Augmentation
    from retinart.train.loss.settings import LossSettings
    from retinart.train.settings import TrainSettings

    return record_of(
        TrainSettings,
        args,
        size=(args.height, args.width),
        loss=record_of(LossSettings, args),
        augmentation=record_of(Augmentation, args),
    )


def with_fields(settings: TrainSettings, assignments: list[str]) -> TrainSettings:
    """The settings with the fields of the model that --set gives."""
    from retinart.engine.model.variant import parse_fields
    from retinart.train.model.presets import preset
    from retinart.train.settings import DEFAULT_MODEL

    variant = preset(settings.model or DEFAULT_MODEL, 1)
    return replace(settings, overrides=parse_fields(variant, assignments))


def _refuse_others(args: argparse.Namespace) -> None:
    """A run that goes on keeps its settings. An option would be ignored, so refuse it."""
    parser: argparse.ArgumentParser = args.options
    plain = vars(parser.parse_args([f"--resume={args.resume}"]))
    flags = {action.dest: action.option_strings[-1:] for action in parser._actions}
    others = [
        *dict.fromkeys(
            flag
            for name, value in plain.items()
            for flag in flags.get(name, ())
            if name not in ("debug", "max_pixels") and getattr(args, name) != value
        )
    ]
    if others:
        raise BadInput(
            f"--resume does not go with {', '.join(others)}",
            why="a run goes on with the settings that it began with",
            fix="Leave them out, or start a new run, from its weights by --weights",
        )
