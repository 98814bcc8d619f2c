"""`retinart export`: a checkpoint becomes an ONNX file."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinart.cli.fields import add_file, add_max_pixels, describe_command, options_of, record_of
from retinart.engine.common.bounded_reading import read_text
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco_names import UNUSED_NAMES

if TYPE_CHECKING:
    from retinart.engine.model.info import ModelInfo


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart export`."""
    from retinart.engine.model.info import Thresholds
    from retinart.export.settings import DEFAULT_IMGSZ, ExportSettings

    describe_command(
        parser,
        "Write a checkpoint of retinart, torchvision, detectron2, mmdetection or odtk as one ONNX "
        "file that takes uint8 BGR frames and gives detections. The command first compares PyTorch "
        "and the file on images. If they differ, it writes no file and exits with 1.",
        "retinart export retinanet.pth -o model.onnx --imgsz 800",
    )
    parser.add_argument("checkpoint", type=Path, help="the checkpoint to read")
    add_file(parser, "model.onnx", "the ONNX file to write")
    add = options_of(parser, ExportSettings, "input size")
    add(
        "imgsz",
        "length of the image's shorter side in pixels; the input is 4:3 unless it is --dynamic, "
        "with sides rounded up to multiples of 32, and images of other shapes are fitted into it; "
        "for 16:9 give --height and --width",
        otherwise=f"the size of the training for retinart's checkpoints, else {DEFAULT_IMGSZ}, or "
        "what fits --height and --width",
    )
    add("height", "fixed height of the input in pixels", otherwise="what --imgsz gives")
    add("width", "fixed width of the input in pixels", otherwise="what --imgsz gives")
    add("dynamic", "let the input's height and width follow each image")
    add = options_of(parser, ExportSettings, "detections")
    add(
        "conf",
        "score that a detection must exceed",
        otherwise=f"{Thresholds.score_thresh}",
    )
    add(
        "iou",
        "IoU above which NMS drops the weaker of two boxes",
        otherwise=f"{Thresholds.nms_thresh}",
    )
    add("max_det", "most detections of an image", otherwise="as the checkpoint's project has it")
    add(
        "topk_candidates",
        "anchors that each level of the pyramid passes on; NMS takes five times as many pairs of "
        "anchor and class; more find more in crowded pictures, and take longer",
        otherwise=f"{Thresholds.topk_candidates}, as all projects have it",
    )
    add(
        "classes",
        "text file with a class name on each line",
        otherwise="the checkpoint's names",
        type=Path,
        nargs=None,
        metavar="FILE",
    )
    add(
        "drop_classes",
        "classes that the file leaves out, which saves time: indices and names with commas "
        "between, such as 0,12,N/A; or none; or unused: those that --classes names N/A or "
        "__background__, and the 11 unused ids of torchvision's published COCO weights; "
        "detections keep their class ids",
        metavar="LIST",
    )
    add = options_of(parser, ExportSettings, "model")
    add(
        "variant",
        "set a field of the model that the checkpoint does not hold, where it differs from the "
        "project's default, such as bn_eps=0; an unknown FIELD prints the list; may be repeated",
        flag="--set",
        otherwise="as the checkpoint's project has it",
        action="append",
        nargs=None,
        metavar="FIELD=VALUE",
    )
    add = options_of(parser, ExportSettings, "checks before the file is written")
    add(
        "images",
        "folder, file or glob of images to compare PyTorch and the file on; 4 are used at most",
        otherwise="synthetic images",
        metavar="SOURCE",
    )
    add(
        "tensorrt",
        "do not build the file with TensorRT-RTX, where that is installed",
        flag="--skip-tensorrt",
    )
    add_max_pixels(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.common.progress import Progress
    from retinart.export.settings import ExportSettings

    names = None if args.classes is None else read_names(args.classes)
    settings = record_of(ExportSettings, args, classes=names)
    _check_before_loading(args)

    from retinart.export.export import export_checkpoint  # it imports PyTorch

    report = export_checkpoint(args.checkpoint, args.out, settings, say=Progress().line)
    _say_alike(report.info.classes)
    say_export(report)
    return 0


def _check_before_loading(args: argparse.Namespace) -> None:
    """Refuse what cannot work before PyTorch is loaded, which takes seconds."""
    from retinart.engine.media.images import list_images
    from retinart.engine.model.onnx_file import check_onnx_output

    if not args.checkpoint.exists():
        raise BadInput(f"there is no checkpoint at {args.checkpoint}", fix="Check the path")
    if args.images is not None:
        list_images(args.images)
    check_onnx_output(args.out, "model.onnx")


def _say_alike(classes: tuple[str, ...]) -> None:
    from retinart.engine.evaluation.class_names import class_key

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
    from retinart.engine.common.wording import counted
    from retinart.engine.describe import input_text

    parity, info = report.parity, report.info
    classes = counted(len(info.classes), "class", "classes")
    print(
        f"{info.provenance['checkpoint']} is a checkpoint of {info.variant.source}: "
        f"{info.variant.backbone}, {classes}\n"
        f"the file's input: {input_text(info)}{_padding_text(info)}",
        file=sys.stderr,
    )
    if report.other_size:
        height, width = report.trained_at
        print(
            f"it was trained at {height}x{width}: at another size objects look larger or smaller "
            "than in training, and AP can be much lower; compare with `retinart eval`",
            file=sys.stderr,
        )
    if text := _dropped_text(info):
        print(text, file=sys.stderr)
    print(
        f"PyTorch and the file agree on {counted(parity.images, 'image')}: raw outputs within "
        f"{parity.head_diff:.1e}, {parity.detections.matched} detections matched one to one "
        f"(scores within {parity.detections.score_diff:.1e}, corners within "
        f"{parity.detections.corner_diff:.1e} px)",
        file=sys.stderr,
    )
    for name in report.assumed:
        print(
            f"the checkpoint does not tell {name}: {getattr(info.variant, name):g} is assumed; if "
            "its training began from torchvision's COCO weights, give `--set bn_eps=0`",
            file=sys.stderr,
        )
    if text := _probe_text(info):
        print(text, file=sys.stderr)
    if report.tensorrt is None:
        print("skipped: trial build with TensorRT-RTX (for GPUs only)", file=sys.stderr)
    else:
        built = report.tensorrt
        print(
            f"TensorRT-RTX {built.version} parsed and built it in {built.seconds:.1f} s",
            file=sys.stderr,
        )
    print(report.path)


def _padding_text(info: ModelInfo) -> str:
    """Why the input is larger than --imgsz; "" where it is not."""
    rule = info.resize
    if rule.canvas is None or rule.short_side in (None, min(rule.canvas)):
        return ""
    return (
        f" ({rule.short_side} on the shorter side, and padding up to a multiple of "
        f"{rule.pad_multiple})"
    )


def _probe_text(info: ModelInfo) -> str:
    """What to say of a self-test whose picture gives no detection."""
    if info.probe is None or info.probe.detections:
        return ""
    return (
        "no detection in the picture of the file's self-test, so `retinart check` cannot test NMS "
        "with it; this is usual for random weights and for a high --conf"
    )


def _dropped_text(info: ModelInfo) -> str:
    """What to say of classes that the file leaves out, or could leave out."""
    from retinart.export.drop_classes import may_be_unused, unused_classes

    if info.dropped_classes:
        ids = ", ".join(map(str, info.dropped_classes))
        anchors, channels = info.variant.num_anchors, len(info.class_ids)
        return (
            f"left out, as never predicted or not wanted: classes {ids}; the class head has "
            f"{anchors * channels} channels instead of {anchors * len(info.classes)}, and "
            "detections keep their class ids"
        )
    if may_be_unused(info):
        ids = ",".join(map(str, unused_classes(info.classes)))
        return (
            "if this model was trained on COCO's 80 categories, "
            f"--drop-classes {ids} makes it faster"
        )
    return ""


def read_names(path: Path) -> tuple[str, ...]:
    """The class names of a text file. Raises BadInput where it holds none, or one twice."""
    fix = "Give a text file in UTF-8 with one name a line"
    lines = read_text(path, noun="class names in", fix=fix).splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise BadInput(f"{path} holds no class names", fix="Give one name a line")
    name, count = Counter(n for n in names if n not in UNUSED_NAMES).most_common(1)[0]
    if count > 1:
        raise BadInput(
            f"{path} holds a name twice",
            why=f"it is {name!r}",
            fix="Give each class a name of its own",
        )
    return names
