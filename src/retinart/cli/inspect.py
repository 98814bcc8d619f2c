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
        "what it was made from. The command does not load the model. Of a checkpoint, it shows the "
        "project that it is taken for, and the fields that `retinart export --set` changes.",
        "retinart inspect model.onnx",
        "retinart inspect retinanet.pth",
    )
    parser.add_argument(
        "model", type=Path, help="an ONNX file of retinart, an engine, or a checkpoint"
    )
    add_json(parser)
    parser.set_defaults(extra="export")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.describe import describe_model, model_table
    from retinart.engine.model.info import looks_like_checkpoint

    if looks_like_checkpoint(args.model):
        return _inspect_checkpoint(args)
    if args.json:
        print(json.dumps(describe_model(args.model), indent=1))
    else:
        print(model_table(args.model))
    return 0


def _inspect_checkpoint(args: argparse.Namespace) -> int:
    from retinart.engine.common.table import Table
    from retinart.engine.describe import class_text, variant_rows
    from retinart.export.checkpoint import load_any

    loaded = load_any(args.model)
    if args.json:
        found = {"file": str(args.model), "classes": loaded.classes}
        print(json.dumps({**found, "variant": loaded.variant.to_dict()}, indent=1))
        return 0
    rows = [
        ("checkpoint of", loaded.variant.source),
        ("classes", class_text(loaded.classes)),
        ("model file", f"`retinart export {args.model} -o model.onnx` makes it"),
        *variant_rows(loaded.variant),
    ]
    print(Table(rows=rows, words=2).text())
    return 0
