"""`retinart convert`: a file becomes an FP16 file, or OpenVINO's IR."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retinart.cli.fields import (
    add_max_pixels,
    add_written,
    describe_command,
    options_of,
    record_of,
    written,
)
from retinart.cli.observing import add_observed

_SUFFIX = {"fp16": ".fp16.onnx", "openvino": ".xml"}


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart convert`."""
    from retinart.calib.settings import CONVERSION_IMAGES, ConvertSettings

    describe_command(
        parser,
        "Write a model in another form. With --to fp16 the float part of its network is in FP16, "
        "for GPUs. Normalisation, decoding and NMS stay FP32, and so does every tensor that would "
        "overflow. With --to openvino the file is OpenVINO's own (IR), with OpenVINO's NMS inside, "
        "for programs and servers that run OpenVINO without retinart.",
        "retinart convert model.onnx --images images -o model.fp16.onnx",
        "retinart convert model.onnx --to openvino --winograd -o model.xml",
    )
    parser.add_argument("model", type=Path, help="an FP32 or INT8 file of retinart")
    parser.add_argument(
        "--to", choices=list(_SUFFIX), default="fp16", help="form to write (default: %(default)s)"
    )
    add_written(
        parser,
        " or ".join(_SUFFIX.values()),
        "the file to write",
        "; an IR's weights are beside it in a .bin file",
    )
    openvino = parser.add_argument_group("OpenVINO's IR")
    openvino.add_argument(
        "--winograd",
        action="store_true",
        help="write 3x3 convolutions with Winograd's algorithm where that is faster on a CPU, as "
        "`retinart detect` runs them; for FP32 files of fixed size",
    )
    add = options_of(parser, ConvertSettings, "ranges of the activations, for FP16")
    add_observed(add, CONVERSION_IMAGES)
    add(
        "record",
        "JSON file of a calibration of this model; its ranges are used",
        otherwise="the one beside the model, if there is one and no --images are given",
    )
    add_max_pixels(parser)
    parser.set_defaults(extra="export")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    output = written(args, _SUFFIX[args.to])
    return _to_openvino(args, output) if args.to == "openvino" else _to_fp16(args, output)


def _to_openvino(args: argparse.Namespace, output: Path) -> int:
    from retinart.engine.errors import BadInput
    from retinart.export.openvino_ir import write_ir

    if args.images is not None or args.record is not None:
        raise BadInput(
            "ranges of activations are for FP16", fix="Leave `images` and `record` out of an IR"
        )
    report = write_ir(args.model, output, winograd=args.winograd)
    if args.winograd:
        why = "" if report.winograd else "; it would make no layer of this file faster"
        print(f"convolutions by Winograd's algorithm: {report.winograd}{why}", file=sys.stderr)
    if report.note:
        print(f"note: {report.note}", file=sys.stderr)
    print(f"weights: {report.weights}", file=sys.stderr)
    print(report.path)
    return 0


def _to_fp16(args: argparse.Namespace, output: Path) -> int:
    from retinart.calib.convert import convert
    from retinart.calib.settings import ConvertSettings
    from retinart.engine.errors import BadInput

    if args.winograd:
        raise BadInput("`winograd` is for OpenVINO's IR", fix="Add --to openvino, or leave it out")
    report = convert(args.model, output, record_of(ConvertSettings, args))
    if not report.source:
        print(
            "Activations were not checked against FP16's largest value, 65504: give --images or "
            "--record to check them",
            file=sys.stderr,
        )
    else:
        print(f"ranges of {report.source} were checked against FP16's 65504", file=sys.stderr)
    for name, peak in report.kept.items():
        print(f"stays FP32: {name}, which reached {peak:.4g}", file=sys.stderr)
    print(report.path)
    return 0
