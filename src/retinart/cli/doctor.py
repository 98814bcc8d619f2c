"""`retinart doctor`: what is installed here."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart doctor` to the parser."""
    doctor = commands.add_parser("doctor", parents=[common], help="what is installed here")
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from retinart.engine.doctor import examine, table

    parts = examine()
    print(json.dumps([asdict(p) for p in parts], indent=1) if args.json else table(parts))
    return 0
