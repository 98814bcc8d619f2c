"""`retinart inspect`: what a model file is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart inspect` to the parser."""
    inspect = commands.add_parser("inspect", parents=[common], help="what a model file is")
    inspect.add_argument("model", type=Path)
    inspect.add_argument("--json", action="store_true", help="for machines")
    inspect.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    from retinart.engine.describe import describe, describe_table

    if args.json:
        print(json.dumps(describe(args.model), indent=1))
    else:
        print(describe_table(args.model))
    return 0
