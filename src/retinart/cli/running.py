"""What `retinart detect` and `retinart eval` have in common: how a model is run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from retinart.cli.fields import options_of
from retinart.cli.keeping import add_keeping, keeping
from retinart.engine.errors import BadInput

if TYPE_CHECKING:
    from retinart.engine.tiles.grid import Tiles


def add_running(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the model, and a group of options that say how it runs; returns the group."""
    parser.add_argument("model", type=Path, help="an ONNX file of retinart, or an engine")
    group = parser.add_argument_group("model")
    add_how(group)
    add_keeping(group)
    for name, kind, metavar, text in (
        ("iou", float, "X", "IoU above which NMS drops the weaker of two boxes"),
        ("max-det", int, "N", "most detections of an image"),
    ):
        group.add_argument(
            f"--{name}", type=kind, metavar=metavar, help=f"{text} (default: as the file says)"
        )
    add_tiles(group)
    group.add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        help="leave out the file's self-test, which runs once for each file on a machine",
    )
    group.add_argument(
        "--no-cache",
        dest="cache",
        action="store_false",
        help="compile the model anew, and do not keep it for later starts",
    )
    return group


def add_tiles(group: argparse._ArgumentGroup) -> None:
    """Add the options that divide pictures."""
    from retinart.engine.tiles.grid import Tiles

    group.add_argument(
        "--tiles",
        metavar="RxC|SIZE",
        help="for small objects in large pictures: see a picture whole and in tiles, such as 2x3 "
        "(rows and columns) or 640 (pixels of a side); each is an inference (default: no tiles)",
    )
    group.add_argument(
        "--overlap",
        type=float,
        default=Tiles.overlap,
        metavar="X",
        help="share of a tile's side that its neighbour has too, at least; larger than the objects "
        "(default: %(default)s)",
    )


def tiles_of(args: argparse.Namespace) -> Tiles | None:
    """The tiles that a command's options say; None where none are asked for."""
    from retinart.engine.tiles.grid import Tiles

    if getattr(args, "tiles", None) is None:
        if getattr(args, "overlap", Tiles.overlap) != Tiles.overlap:
            raise BadInput("--overlap is for tiles, and none are given", fix="Give --tiles")
        return None
    return Tiles.parse(args.tiles, args.overlap)


def add_how(group: argparse._ArgumentGroup) -> None:
    """Add the options that say what computes a model."""
    from retinart.engine.model.info import Compute
    from retinart.engine.runtime.options import OpenVINOOptions, RuntimeChoice

    group.add_argument(
        "--runtime",
        choices=get_args(RuntimeChoice),
        default="auto",
        help="what runs an ONNX file; auto is openvino (default: %(default)s)",
    )
    group.add_argument(
        "--device",
        metavar="NAME",
        help="OpenVINO's device; an engine's GPU, such as cuda:1, which also makes an engine of an "
        "ONNX file on first use; or one of ONNX Runtime's: CPU, cuda, tensorrt, tensorrt-rtx "
        "(default: CPU, or cuda:0)",
    )
    add = options_of(group, OpenVINOOptions)
    add("threads", "threads of inference", otherwise="as many as this process may use")
    add(
        "compute",
        "what OpenVINO computes float layers in: bf16 is fastest on CPUs that have it; "
        "fp32-direct is FP32 without Winograd's algorithm, in less memory; auto times an INT8 file "
        "once, and takes for others fp32",
        choices=("auto", *get_args(Compute)),
    )
    add(
        "tune",
        "which convolutions take Winograd's algorithm: on times them on this machine, once, which "
        "takes seconds; cached takes the times that were kept; off decides by their sizes",
    )


def open_detector(args: argparse.Namespace, model: Path | None = None, **more: Any) -> Any:
    """A detector of the command's model, or of another one.

    The self-test's result is printed when the test ran now. One that passed before is not printed.
    """
    from retinart.engine.detector import Detector
    from retinart.engine.self_test.check import PASSED_BEFORE

    detector = Detector(model or args.model, **detector_settings(args, **more))
    if detector.checked and not detector.checked.startswith(PASSED_BEFORE):
        print(f"{model or args.model}: {detector.checked}", file=sys.stderr)
    return detector


def detector_settings(args: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """The arguments of `Detector` that a command's options say, without the model."""
    return {
        "runtime": args.runtime,
        "device": args.device,
        "threads": args.threads,
        "tiles": tiles_of(args),
        **_given(args),
        **keeping(args),
        **more,
    }


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Settings that not every command has."""
    names = ("iou", "max_det", "compute", "tune", "check", "cache")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}
