"""`retinart export`: a checkpoint becomes an ONNX file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from retinart.engine.errors import BadInput


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart export` to the parser."""
    export = commands.add_parser(
        "export",
        parents=[common],
        help="checkpoint to ONNX",
        description="Write a checkpoint of retinart, torchvision, detectron2, mmdetection or odtk "
        "as one ONNX file that takes uint8 BGR frames and gives detections. PyTorch and the file "
        "are compared on images first; when they differ no file is written and the exit code is 1.",
    )
    export.add_argument("checkpoint", type=Path)
    export.add_argument("-o", "--out", type=Path, default=Path("model.onnx"), metavar="FILE")
    export.add_argument(
        "--imgsz",
        type=int,
        metavar="S",
        help="shorter side in pixels, default 600; alone it gives a 4:3 input, in which other "
        "shapes are fitted smaller: for 16:9 give --height and --width",
    )
    export.add_argument("--height", type=int, metavar="H", help="fixed input height")
    export.add_argument("--width", type=int, metavar="W", help="fixed input width")
    export.add_argument(
        "--dynamic", action="store_true", help="input height and width follow each image"
    )
    export.add_argument(
        "--max-det", type=int, metavar="N", help="an image; default: what the project keeps"
    )
    export.add_argument("--conf", type=float, metavar="T", help="score threshold, default 0.05")
    export.add_argument("--iou", type=float, metavar="T", help="NMS threshold, default 0.5")
    export.add_argument("--classes", type=Path, metavar="FILE", help="class names, one a line")
    export.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="what the file's tensors do not tell and its project does otherwise by default, such "
        "as bn_eps=0 (fields: see inspect)",
    )
    export.add_argument("--images", metavar="SOURCE", help="images to compare on, 4 at most")
    export.add_argument(
        "--skip-tensorrt", action="store_true", help="do not build the graph with TensorRT-RTX"
    )
    export.set_defaults(run=_export, extra="export")


def _export(args: argparse.Namespace) -> int:
    from retinart.export.export import export_checkpoint
    from retinart.export.settings import ExportSettings

    settings = ExportSettings(
        imgsz=args.imgsz,
        height=args.height,
        width=args.width,
        dynamic=args.dynamic,
        conf=args.conf,
        iou=args.iou,
        max_det=args.max_det,
        classes=None if args.classes is None else _names(args.classes),
        images=args.images,
        variant=tuple(args.set),
        tensorrt=not args.skip_tensorrt,
    )
    report = export_checkpoint(args.checkpoint, args.out, settings)
    _say_alike(report.info.classes)
    say_export(report)
    return 0


def _say_alike(classes: tuple[str, ...]) -> None:
    from retinart.engine.evaluation.evaluate import class_key

    first: dict[str, str] = {}
    for name in classes:
        if first.setdefault(class_key(name), name) != name:
            other = first[class_key(name)]
            print(
                f"the classes {other!r} and {name!r} differ in case only: they are two to the "
                "detector, and one to `retinart eval`",
                file=sys.stderr,
            )


def say_export(report: Any) -> None:
    """Say on stderr what an export found, and print its path."""
    parity = report.parity
    print(
        f"PyTorch and the file agree on {parity.images} images: raw outputs within "
        f"{parity.head_diff:.1e}, {parity.detections.matched} detections matched one to one "
        f"(scores within {parity.detections.score_diff:.1e}, corners within "
        f"{parity.detections.corner_diff:.1e} px)",
        file=sys.stderr,
    )
    if report.tensorrt is None:
        print("TensorRT-RTX is not installed or was skipped: not built with it", file=sys.stderr)
    else:
        built = report.tensorrt
        print(
            f"TensorRT-RTX {built.version} parsed and built it in {built.seconds:.1f} s",
            file=sys.stderr,
        )
    print(report.path)


def _names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"cannot read class names from {path}",
            why=str(error),
            fix="Give a text file in UTF-8 with one name a line",
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise BadInput(f"{path} holds no class names", fix="Give one name a line")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise BadInput(
            f"{path} holds a name twice",
            why=f"it is {twice[0]!r}",
            fix="Give each class a name of its own",
        )
    return names
