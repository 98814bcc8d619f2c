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
        "project that it is taken for, and the fields that `retinart export --set` changes. With "
        "--layers, it runs an engine and shows what each layer computes in and how long it takes.",
        "retinart inspect model.onnx",
        "retinart inspect retinanet.pth",
        "retinart inspect model.engine --layers",
    )
    parser.add_argument(
        "model", type=Path, help="an ONNX file of retinart, an engine, or a checkpoint"
    )
    parser.add_argument(
        "--layers",
        action="store_true",
        help="of an engine: each layer's types and time, on this machine's GPU",
    )
    parser.add_argument(
        "--gpu", type=int, default=0, metavar="N", help="the GPU's number (default: %(default)s)"
    )
    add_json(parser)
    parser.set_defaults(extra="export")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.describe import describe_model, model_table
    from retinart.engine.model.info import looks_like_checkpoint

    if args.layers:
        return _inspect_layers(args)
    if looks_like_checkpoint(args.model):
        return _inspect_checkpoint(args)
    if args.json:
        print(json.dumps(describe_model(args.model), indent=1))
    else:
        print(model_table(args.model))
    return 0


def _inspect_layers(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from retinart.engine.errors import BadInput
    from retinart.engine.tensorrt.engine_file import is_engine
    from retinart.engine.tensorrt.layers import layer_table, read_layers

    if not is_engine(args.model):
        raise BadInput(
            f"{args.model} has no layers of TensorRT",
            why="only an engine has them",
            fix="Build one with `retinart build`, and give its path",
        )
    layers = read_layers(args.model, args.gpu)
    print(
        json.dumps([asdict(layer) for layer in layers], indent=1)
        if args.json
        else layer_table(layers)
    )
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
