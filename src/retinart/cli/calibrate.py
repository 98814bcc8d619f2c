"""`retinart calibrate`: an FP32 file becomes an INT8 or FP8 file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retinart.cli.fields import (
    ANNOTATION_FORMS,
    add_max_pixels,
    add_written,
    describe_command,
    options_of,
    record_of,
    written,
)
from retinart.cli.observing import add_observed

_USUAL = 50  # images of a calibration


_SUFFIX = ".int8.onnx"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart calibrate`."""
    from retinart.calib.settings import CALIBRATION_IMAGES, CalibrationSettings

    describe_command(
        parser,
        "Observe the ranges of a model's activations on images, and write the model with Q/DQ "
        "pairs, which are nodes that round a tensor to 8 bits. FILE.json beside the file holds the "
        "ranges, the method and hashes of all that went in. With --max-drop, as few layers stay in "
        "float as the limit allows.",
        "retinart calibrate model.onnx --images images -o model.int8.onnx",
        "retinart calibrate model.onnx --images images --annotations instances.json --max-drop 0.5",
    )
    parser.add_argument("model", type=Path, help="the FP32 file of `retinart export`")
    add_written(parser, _SUFFIX, "the file to write")
    add = options_of(parser, CalibrationSettings, "ranges of the activations")
    add_observed(add, CALIBRATION_IMAGES)
    add(
        "record",
        "JSON file of an earlier calibration of the same weights at the same size; its ranges are "
        "used",
        otherwise="observe --images",
    )
    add(
        "precision",
        "type of the 8-bit numbers: int8, or fp8 (E4M3), for GPUs of Ada, Hopper and newer",
    )
    add(
        "tuned",
        "`retinart train --quantize` trained the weights with --record; the file rounds as the "
        "training did",
    )
    add("method", "how a layer's threshold is chosen from its range")
    add(
        "weight_bits",
        "bits of the weights; 7 gives the same numbers on CPUs with and without VNNI",
    )
    add(
        "rounding",
        "how weights become integers. nearest takes the nearest integer; scaled also chooses the "
        "step of each channel that changes its outputs least; learned also rounds each weight up "
        "or down so that the outputs change least",
    )
    add(
        "correct_bias",
        "move each bias so that the outputs of its convolution keep their mean, measured on 32 of "
        "--images",
    )
    add = options_of(parser, CalibrationSettings, "accuracy")
    add(
        "annotations",
        f"{ANNOTATION_FORMS}, of images to measure AP on",
        otherwise="measure no AP",
    )
    add(
        "eval_images",
        "folder of the images of --annotations",
        otherwise="the folder of --images",
        metavar="DIR",
    )
    add(
        "max_drop",
        "AP points that INT8 may lose; needs --annotations",
        otherwise="no limit",
    )
    add(
        "undecided",
        "what to do when the 95% interval of the loss contains --max-drop: fail leaves more layers "
        "in float, and pass accepts the file",
    )
    add(
        "keep_float",
        "leave the layers of this pattern in float, such as 'backbone.layer1.*', or grouped for "
        "all whose convolution has groups; may be repeated",
        otherwise="none",
        action="append",
        nargs=None,
        metavar="PATTERN",
    )
    add = options_of(parser, CalibrationSettings, "report")
    add(
        "report",
        "HTML page to write, with the ranges, each layer's sensitivity, and AP with --annotations",
        otherwise="no page",
    )
    add_max_pixels(parser)
    parser.set_defaults(extra="export")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.calib.calibrate import calibrate
    from retinart.calib.settings import CalibrationSettings
    from retinart.calib.tables import accuracy_table, sensitivity_table, signal_table

    output = written(args, _SUFFIX.replace("int8", args.precision))
    report = calibrate(args.model, output, record_of(CalibrationSettings, args))
    record = report.record
    tables = [sensitivity_table(record, most=10)] if record.sensitivity else []
    tables += [signal_table(record)] if record.signal_to_noise else []
    tables += [accuracy_table(record.accuracy)] if record.accuracy else []
    for table in tables:
        print("\n".join([table.text(), *table.notes]), end="\n\n", file=sys.stderr)
    for layer in record.kept_float:
        print(f"in float: {layer}", file=sys.stderr)
    print(
        f"{report.convolutions} convolutions are {record.precision.upper()}, by {record.method} "
        f"over {record.images} images; the record is {report.record_path}",
        file=sys.stderr,
    )
    if record.images < _USUAL:
        print(
            f"ranges of {record.images} images can be too narrow; {_USUAL} or more are usual",
            file=sys.stderr,
        )
    print(report.path)
    if args.report is not None:
        print(args.report)
    return 0
