"""The options of `detect`, `eval` and `benchmark` that say which detections are kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from retinart.cli.fields import options_of
from retinart.engine.errors import BadInput


def add_keeping(group: argparse._ActionsContainer) -> None:
    """Add the options; `keeping` reads them."""
    from retinart.engine.keep.rules import Keep

    group.add_argument(
        "--conf",
        type=_conf,
        metavar="X",
        help="score that a detection must exceed, also by class: car=0.6,0.4 is 0.6 for cars and "
        "0.4 for all others (default: as the file says)",
    )
    add = options_of(group, Keep)
    add(
        "classes",
        "keep detections of these classes only, named as in car,person",
        otherwise="all classes",
        type=str,
        nargs=None,
        metavar="NAMES",
        default=None,
    )
    add("min_size", "width and height that a box must have at least, in pixels of the picture")
    group.add_argument(
        "--region",
        type=Path,
        metavar="FILE",
        help="keep detections inside or outside of the regions in this JSON file; detect --track "
        "also counts at its lines and zones (default: keep them everywhere)",
    )
    add(
        "agnostic",
        "of two boxes that overlap more than --iou, keep the better one, even if their classes "
        "differ",
        flag="--agnostic-nms",
    )


def _conf(text: str) -> str:
    """The text of `--conf`, if it can be read."""
    from retinart.engine.keep.rules import parse_conf

    try:
        parse_conf(text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def keeping(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments `conf` and `keep` of `Detector`; none for a command without these options."""
    from retinart.engine.keep.areas import read_areas
    from retinart.engine.keep.rules import Keep, parse_conf

    if not hasattr(args, "region"):
        return {}
    conf, by_class = (None, {}) if args.conf is None else parse_conf(args.conf)
    areas = None if args.region is None else read_areas(args.region)
    if areas is not None and not areas.regions and not hasattr(args, "track"):
        raise BadInput(f"{args.region} has no regions", fix="Add some, or leave out --region")
    classes = () if args.classes is None else tuple(n.strip() for n in args.classes.split(","))
    rules = Keep(
        classes=classes,
        conf=by_class,
        min_size=args.min_size,
        areas=areas,
        agnostic=args.agnostic,
    )
    return {"conf": conf, "keep": None if rules.all else rules}


def rules_given(args: argparse.Namespace) -> dict[str, Any]:
    """These options as they were given, for the command line that a report shows."""
    names = ("conf", "classes", "min_size", "region")
    given = {name: getattr(args, name) for name in names if getattr(args, name)}
    return {**given, "agnostic_nms": True} if args.agnostic else given
