"""`retinart doctor`: what is installed here."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from retinart.cli.fields import add_json, describe_command


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart doctor`."""
    describe_command(
        parser,
        "Show which packages, CPU instructions and GPUs retinart finds on this machine, what each "
        "is for, and the command that installs a missing package.",
        "retinart doctor",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.doctor import examine, parts_table

    parts = examine()
    print(json.dumps([asdict(p) for p in parts], indent=1) if args.json else parts_table(parts))
    return 0
