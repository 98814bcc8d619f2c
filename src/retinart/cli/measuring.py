"""What `retinart benchmark` and `retinart curve` have in common."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from retinart.engine.model.info import COMPUTE

COMPUTE_OPTION: dict[str, Any] = {
    "nargs": "+",
    "choices": COMPUTE,
    "default": ["fp32"],
    "help": "what OpenVINO computes float layers in, each of these",
}


def add_peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peers", nargs="*", metavar="NAME",
        help="also time torchvision, torch-compile, onnxruntime and torch-compile-fp16, or some",
    )  # fmt: skip
    parser.add_argument(
        "--torchvision", type=Path, default=Path("build/peers"), metavar="DIR",
        help="where torchvision was installed with `pip install --no-deps --target DIR`",
    )  # fmt: skip


def say_no_report(why: str) -> None:
    if why:
        print(f"There will be no report.html, only JSON and CSV. {why}", file=sys.stderr)


def command_line(name: str, *positional: Path, **settings: Any) -> str:
    """The command line of a job, with what was left to its defaults written out."""
    words = ["retinart", name, *map(str, positional)]
    for key, value in settings.items():
        if value is not None and value != ():
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{key.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)
