"""How long commands take from the first second: without what an earlier start kept, and with it.

    python -m retinart.benchmarks.startup MODEL... --image PICTURE

Each command is a process of its own. A first start finds an empty cache of the user: it compiles
the model and runs the self-test. The files themselves are in the system's cache. The inference is
timed in this process.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.alternate import milliseconds
from retinart.engine.common.table import Table
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.media.images import read_image

HEAD = ("command", "model", "first s", "later s", "fastest to slowest", "CPU s", "inference s",
        "goal s")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table. Returns the exit code."""
    parser = new_parser("benchmarks.startup", __doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="ONNX files")
    parser.add_argument("--image", type=Path, required=True, help="the picture to detect on")
    parser.add_argument("--repeats", type=int, default=7, help="later starts of each command")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    here, noise = machine.describe(), [machine.reference() for _ in range(3)]
    rows = [("--help", "", *_starts(["--help"], args.repeats), "", "0.15")]
    for model in args.models:
        inspect = _starts(["inspect", str(model)], args.repeats)
        rows.append(("inspect", model.name, *inspect, "", ""))
        detect = _starts(["detect", str(model), str(args.image)], args.repeats)
        one = _inference(model, args.image)
        rows.append(("detect", model.name, *detect, f"{one:.2f}", f"{1 + 2 * one:.2f}"))
        noise.append(machine.reference())
        print(*rows[-1], file=sys.stderr)
    print(
        f"{args.repeats} later starts each, medians; {here.cpu} with {' '.join(here.flags)}, "
        f"{os.cpu_count()} CPUs, OpenVINO {here.versions['openvino']}\n\n"
        f"{Table(head=HEAD, rows=rows, words=2).markdown()}\n\n"
        f"The reference workload varied by {statistics.spread(noise):.0%}."
    )


def _starts(words: Sequence[str], repeats: int) -> tuple[str, str, str, str]:
    """Seconds of the first start, of the later ones (median and extremes), and of their CPU."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", f"{folder}/out", "--overwrite"] if words[0] == "detect" else []
        first, *rest = (_seconds([*words, *out], folder) for _ in range(repeats + 1))
    later, cpu = zip(*rest, strict=True)
    middle, busy = statistics.median(later).value, statistics.median(cpu).value
    return (
        f"{first[0]:.2f}",
        f"{middle:.2f}",
        f"{min(later):.2f} to {max(later):.2f}",
        f"{busy:.2f}",
    )


def _seconds(words: Sequence[str], cache: str) -> tuple[float, float]:
    """How long a command takes as a process, and how much CPU time on all CPUs together."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "retinart", *words]
    start = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "XDG_CACHE_HOME": cache}
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise BadInput(
            f"`retinart {' '.join(words)}` ended with {done.returncode}",
            why=(done.stderr.strip().splitlines() or ["without a message"])[-1],
            fix="Run it by itself",
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _inference(model: Path, image: Path) -> float:
    """Seconds of the median of eleven calls on a picture that is in memory."""
    picture = read_image(image)
    with Detector(model, check=False, cache=False) as detector:
        times = [milliseconds(lambda: detector(picture)) for _ in range(12)]
    return statistics.median(times[1:]).value / 1000


if __name__ == "__main__":
    sys.exit(main())
