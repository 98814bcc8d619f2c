"""The roofline of each point of the paper's grid: what arithmetic and memory allow, and the time.

    python -m retinart.benchmarks.roofline benchmarks/results/paper_grid.json

Arithmetic is the convolutions' multiply-accumulates over the peak that the grid measured. Memory is
what each convolution reads and writes by itself, over the rate at which this machine copies large
arrays now. Neither can be undercut, but by Winograd's algorithm, which multiplies less, and by what
stays in a cache.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks.grid.steps import random_checkpoint
from retinart.benchmarks.latency.shares import count_work, number_bytes
from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing import machine
from retinart.benchmarks.timing.alternate import milliseconds
from retinart.benchmarks.timing.peaks import Peaks
from retinart.engine.common.bounded_reading import read_json
from retinart.engine.common.table import Table
from retinart.engine.errors import BadInput
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings

_COPIED = 256 << 20  # bytes of each thread, far beyond the caches
_RUNS = 8
_CLASSES = 91  # of the grid
HEAD = ("backbone", "shorter side", "precision", "GMAC", "MB", "ms of arithmetic", "ms of memory",
        "infer ms", "roof reached")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table. Returns the exit code."""
    parser = new_parser("benchmarks.roofline", __doc__)
    parser.add_argument("grid", type=Path, help="paper_grid.json of the grid's benchmark")
    parser.add_argument("--threads", type=int, default=2, help="that copy")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    found = read_json(args.grid, most=64 << 20, fix="Give the grid's JSON file")
    try:
        of = found["timings"][0]["benchmark"]["machine"]
        bandwidth = copy_rate(args.threads)
        rows = list(_rows(found, bandwidth))
    except (KeyError, TypeError, IndexError) as error:
        raise BadInput(f"{args.grid} is not a grid", why=str(error), fix="Time one") from error
    here = machine.describe()
    print(
        f"Timed on {of['cpu']} with {' '.join(of['flags'])}. Copied now on {here.cpu} with "
        f"{' '.join(here.flags)}: {bandwidth:.1f} GB/s, read and written.\n"
    )
    print(Table(head=HEAD, rows=rows, words=3).markdown())


def _rows(grid: Any, bandwidth: float) -> Iterator[tuple[object, ...]]:
    values = dict(_values(grid))
    for scale in grid["timings"]:
        timed = scale["benchmark"]
        peaks = Peaks(**timed["peak_gops"])
        for m in timed["models"]:
            numbers = values[(scale["checkpoint"], *m["input"])]
            megabytes = numbers * number_bytes(m["precision"]) / 1e6
            arithmetic = 2e3 * m["gmac"] / peaks.of(m["precision"])
            memory, infer = megabytes / bandwidth, m["ms"]["infer"]["p50"]
            yield (
                scale["checkpoint"],
                scale["imgsz"],
                m["precision"],
                f"{m['gmac']:.1f}",
                f"{megabytes:.0f}",
                f"{arithmetic:.0f}",
                f"{memory:.0f}",
                f"{infer:.0f}",
                f"{max(arithmetic, memory) / infer:.0%}",
            )


def _values(grid: Any) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Numbers that convolutions read and write, by backbone, height and width.

    They are counted in files of the grid's networks, with random weights and any size.
    """
    sizes: dict[str, set[tuple[int, int]]] = {}
    for scale in grid["timings"]:
        of = sizes.setdefault(scale["checkpoint"], set())
        of |= {tuple(m["input"]) for m in scale["benchmark"]["models"]}
    for backbone, inputs in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, file = Path(folder, "a.pth"), Path(folder, "a.onnx")
            picture = np.full((480, 640, 3), 114, np.uint8)
            random_checkpoint(checkpoint, backbone, _CLASSES, picture)
            settings = ExportSettings(imgsz=128, dynamic=True, drop_classes="none", tensorrt=False)
            export_checkpoint(checkpoint, file, settings)
            for size in inputs:
                yield (backbone, *size), count_work(file, size).values


def copy_rate(threads: int) -> float:
    """10^9 bytes a second that threads read and write together; the best of some runs."""
    size = _COPIED // 8
    pairs = [(np.ones(size), np.zeros(size)) for _ in range(threads)]

    def copy(pair: tuple[Any, Any]) -> None:
        np.copyto(pair[1], pair[0])

    with ThreadPoolExecutor(threads) as pool:
        best = min(milliseconds(lambda: list(pool.map(copy, pairs))) for _ in range(_RUNS))
    return 2 * threads * _COPIED / best / 1e6


if __name__ == "__main__":
    sys.exit(main())
