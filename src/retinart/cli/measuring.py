"""What `retinart benchmark` and `retinart curve` have in common."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_runs(add: Callable[..., None]) -> None:
    """Add how often and with how many threads each model runs."""
    add("num_images", "images to time on")
    add("repeats", "runs of each image")
    add("threads", "threads of each runtime")
    add("compute", "what OpenVINO computes float layers in; a row for each of these")


def add_peers(add: Callable[..., None]) -> None:
    """Add what else is timed."""
    from retinart.benchmarks.timing.settings import PEERS

    add(
        "peers",
        f"also time these peers: {', '.join(PEERS)}; --peers alone times all of them",
        otherwise="no peers",
        default=None,
        nargs="*",
        metavar="NAME",
    )
    add(
        "torchvision",
        "folder where `pip install --no-deps --target DIR` put torchvision",
        otherwise="torchvision is left out",
        metavar="DIR",
    )


def wanted_peers(given: list[str] | None) -> tuple[str, ...]:
    """The peers that `--peers` asks for; all of them when it names none."""
    from retinart.benchmarks.timing.settings import PEERS

    return PEERS if given == [] else tuple(given or ())


def say_no_report(why: str) -> None:
    """Say on stderr why there will be no HTML page."""
    if why:
        print(f"There will be no report.html, only JSON and CSV. {why}", file=sys.stderr)


def command_line(name: str, *positional: Path, **settings: Any) -> str:
    """The command line of a job, with its defaults written out."""
    words = ["retinart", name, *map(str, positional)]
    for key, value in settings.items():
        if value is not None and value != ():
            values = value if isinstance(value, tuple) else () if value is True else (value,)
            words += [f"--{key.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)
