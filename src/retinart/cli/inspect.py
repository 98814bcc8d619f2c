"""`retinart inspect`: what a model file is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from retinart.cli.fields import add_json, describe_command


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart inspect`."""
    describe_command(
        parser,
        "Show what a model file says of itself: classes, input size, precision, thresholds, and "
        "what it was made from. The command does not load the model.",
        "retinart inspect model.onnx",
    )
    parser.add_argument("model", type=Path, help="an ONNX file of retinart, or an engine")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.describe import describe_model, model_table

    if args.json:
        print(json.dumps(describe_model(args.model), indent=1))
    else:
        print(model_table(args.model))
    return 0
