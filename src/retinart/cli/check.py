"""`retinart check`: whether this machine computes a model file as it should."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from retinart.cli.fields import add_json, describe_command
from retinart.cli.running import add_how, open_detector
from retinart.engine.errors import BadInput


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart check`."""
    describe_command(
        parser,
        "Run the self-test that a model file carries, and compare this machine's results with the "
        "file's: the graph, the raw outputs, the candidates and NMS. If they differ by more than "
        "the file's precision allows, print the likely cause and a remedy, and exit with 1.",
        "retinart check model.onnx",
        "retinart check model.int8.onnx --runtime onnxruntime",
    )
    parser.add_argument("model", type=Path, help="an ONNX file of retinart, or an engine")
    add_how(parser.add_argument_group("model"))
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.self_test.check import check_model
    from retinart.engine.tensorrt.engine_file import is_engine

    with open_detector(args, check=False) as detector:
        info = detector.info
        if info.probe is None:
            raise BadInput(
                f"{args.model} carries no probe",
                why="an earlier retinart wrote it",
                fix="Export it again, or build it again from a file that has one",
            )
        report = check_model(
            detector.runner,
            info,
            detector.precision,
            info.probe,
            None if is_engine(args.model) else args.model,
        )
    if args.json:
        stages = [vars(stage) for stage in report.stages]
        answer = {"good": report.good, "stages": stages, "cause": report.cause, "fix": report.fix}
        print(json.dumps(answer, indent=1))
    else:
        for stage in report.stages:
            print(f"{stage.name:<12}  {'ok ' if stage.good else 'BAD'}  {stage.text}")
        if not report.stages:
            print("Nothing could be compared: the engine's probe holds no detections.")
        if report.cause:
            print(f"Likely cause: {report.cause}.\n{report.fix}.")
    return 0 if report.good else 1
