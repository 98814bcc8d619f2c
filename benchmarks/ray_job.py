"""The rate of `detect --ray` on this machine against `detect`, and the memory of its actor.

    python -m retinart.benchmarks.ray_job model.onnx pictures

Both commands detect on the same folder, in turn, and the order turns around from round to round.
The lines of both are compared byte for byte. Each command gives the rate from its first picture to
its last result, as its summary has it; the seconds of the whole command contain Ray's start too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing.statistics import FEWEST, check_rounds, median, median_of_ratios
from retinart.engine.common.table import Table
from retinart.engine.errors import BadInput, CheckFailed

_MEMORY_SECONDS = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Print tables. Returns the exit code."""
    parser = new_parser("benchmarks.ray_job", __doc__)
    parser.add_argument("model", type=Path, help="an ONNX file of retinart")
    parser.add_argument("images", type=Path, help="a folder of pictures")
    parser.add_argument("--repeats", type=int, default=FEWEST, metavar="N", help="rounds")
    parser.add_argument("--ray-cpus", type=int, metavar="N", help="CPUs of an actor")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    check_rounds(args.repeats)
    more = [] if args.ray_cpus is None else ["--ray-cpus", str(args.ray_cpus)]
    ways = {"detect": ["--no-copies"], "detect --ray": ["--ray", *more]}
    runs: dict[str, list[_Run]] = {name: [] for name in ways}
    for number in range(args.repeats):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            runs[name].append(_go(args, ways[name]))
    if len({one.lines for some in runs.values() for one in some}) != 1:
        raise CheckFailed(
            "the commands wrote different lines", fix="Compare their `detections.jsonl`"
        )
    here, there = runs.values()
    rows = [
        (
            name,
            f"{median([one.rate for one in some])}",
            f"{median([one.seconds for one in some])}",
            f"{max(one.grown for one in some):.1f}" if name != "detect" else "",
        )
        for name, some in runs.items()
    ]
    head = ("command", "pictures a second (95%)", "seconds of the command (95%)",
            "most growth of an actor, MB")  # fmt: skip
    print(Table(head=head, rows=rows).markdown())
    print(
        f"\npictures: {here[0].pictures}, all lines alike; ratio of the rates, by round: ", end=""
    )
    print(median_of_ratios([one.rate for one in there], [one.rate for one in here]))


class _Run(NamedTuple):
    """What a command did: its lines, their number, pictures a second, its seconds, MB grown."""

    lines: bytes
    pictures: int
    rate: float
    seconds: float
    grown: float


def _go(args: argparse.Namespace, how: list[str]) -> _Run:
    with tempfile.TemporaryDirectory() as folder, _memory() as memory:
        out = Path(folder) / "out"
        command = ["-m", "retinart", "detect", str(args.model), str(args.images), "--out", str(out)]
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, *command, *how], capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise BadInput(
                f"`detect {' '.join(how)}` failed", why=done.stderr.strip(), fix="Run it alone"
            )
        summary = json.loads((out / "summary.json").read_text())
        lines = (out / "detections.jsonl").read_bytes()
    mine = [values for values in memory.values() if len(values) > 2]
    grown = max((_late(values) for values in mine), default=0.0)
    return _Run(lines, summary["frames"]["written"], summary["fps"]["value"], seconds, grown)


def _late(values: Sequence[float]) -> float:
    """By how much the second half of a process's life exceeds the end of its first half."""
    half = len(values) // 2
    return max(values[half:]) - values[half]


@contextmanager
def _memory() -> Iterator[dict[int, list[float]]]:
    """The resident MB of the actors on this machine, by process, from time to time."""
    found, ended = dict[int, list[float]](), threading.Event()

    def look() -> None:
        while not ended.wait(_MEMORY_SECONDS):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    status = (path.parent / "status").read_text()
                    actor = path.read_bytes().startswith(b"ray::DetectorActor")
                    if actor and os.getpid() in _parents(status):
                        kilobytes = float(status.partition("VmRSS:")[2].split()[0])
                        found.setdefault(int(path.parent.name), []).append(kilobytes / 1000)
                except (OSError, IndexError):
                    continue  # it has just ended

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _parents(status: str) -> Iterator[int]:
    """The processes above one, by its status file."""
    while (parent := int(status.partition("PPid:")[2].split()[0])) > 0:
        yield parent
        status = Path(f"/proc/{parent}/status").read_text()


if __name__ == "__main__":
    raise SystemExit(main())
