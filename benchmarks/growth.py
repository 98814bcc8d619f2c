"""How the time of a detection grows with its work: pixels, batch, streams, classes, detections.

    python -m retinart.benchmarks.growth MODEL --grid benchmarks/results/paper_grid.csv --out DIR

A line is fitted to each series, and the point that lies farthest from it says where it bends. The
times over pixels are the grid's. Batches and streams are of MODEL. Files with 1 to 1,000 classes
are exported from random weights of resnet18. Detections are kept from made-up candidates.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks.grid.steps import random_checkpoint
from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.alternate import alternate, milliseconds
from retinart.engine.common.files import atomic_path
from retinart.engine.common.html_page import load_matplotlib
from retinart.engine.common.table import Table
from retinart.engine.detector import Detector
from retinart.engine.media.images import Image
from retinart.engine.model.info import Thresholds
from retinart.engine.runtime.nms import detect_from_candidates
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings

BATCHES, STREAMS = (1, 2, 4, 8), (1, 2, 4)
CLASSES = (1, 10, 91, 300, 1000)
KEPT = (10, 30, 100, 300, 1000, 2000)
SIDE = 256  # of the files with many classes


@dataclass(frozen=True)
class Series:
    """Milliseconds over an amount of work.

    Attributes:
        name: what grows, and of what.
        work, ms: the points.
    """

    name: str
    work: Sequence[float]
    ms: Sequence[float]

    @property
    def line(self) -> tuple[float, float]:
        """The slope of the fitted line, and its value at 0. Each point has the same weight."""
        slope, start = np.polyfit(self.work, self.ms, 1)
        return float(slope), float(start)

    def row(self) -> tuple[object, ...]:
        """Cells of the table: points, line, and the point that is farthest from it."""
        slope, start = self.line
        expected = slope * np.asarray(self.work) + start
        off = np.asarray(self.ms) / expected - 1
        worst = int(np.abs(off).argmax())
        points = ", ".join(f"{w:.4g}: {ms:.4g}" for w, ms in zip(self.work, self.ms, strict=True))
        bend = f"{off[worst]:+.0%} at {self.work[worst]:.4g}"
        return self.name, points, f"{start:.4g} + {slope:.4g} x", bend


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table. Returns the exit code."""
    parser = new_parser("benchmarks.growth", __doc__)
    parser.add_argument("model", type=Path, help="an ONNX file of retinart with a fixed size")
    parser.add_argument("--grid", type=Path, help="paper_grid.csv of the grid's benchmark")
    parser.add_argument("--threads", type=int, default=2, help="of OpenVINO")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each point")
    parser.add_argument("--out", type=Path, metavar="PNG", help="where to draw the points")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    here, noise, found = machine.describe(), [machine.reference()], list[Series]()
    for series in _all(args):
        found.append(series)
        noise.append(machine.reference())
        print(*series.row(), file=sys.stderr)
    print(
        f"{args.threads} threads, {args.repeats} runs of each point, in turns, the fastest; "
        f"{here.cpu} with {' '.join(here.flags)}, OpenVINO {here.versions['openvino']}\n"
    )
    head = ("ms over", "points", "line", "farthest from it")
    print(Table(head=head, rows=[series.row() for series in found], words=4).markdown())
    print(f"\nThe reference workload varied by {statistics.spread(noise):.0%}.")
    if args.out is not None:
        _draw(found, args.out)


def _all(args: argparse.Namespace) -> Iterator[Series]:
    if args.grid is not None:
        yield from _over_pixels(args.grid)
    yield _over_batches(args.model, args.threads, args.repeats)
    yield _over_streams(args.model, args.threads, args.repeats)
    yield from _over_classes(args.threads, args.repeats)
    yield _over_detections(args.repeats)


def _over_pixels(path: Path) -> Iterator[Series]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for kind in dict.fromkeys((row["backbone"], row["precision"]) for row in rows):
        of = [row for row in rows if (row["backbone"], row["precision"]) == kind]
        work = [int(row["height"]) * int(row["width"]) / 1e6 for row in of]
        ms = [float(row["total_p50_ms"]) for row in of]
        yield Series(f"megapixels, {' '.join(kind)}", work, ms)


def _over_batches(model: Path, threads: int, repeats: int) -> Series:
    picture = _picture()
    with Detector(model, threads=threads, check=False, cache=False) as detector:
        works = {n: partial(detector, [picture] * n) for n in BATCHES}
        return _series(f"images of a batch, {model.name}", works, repeats)


def _over_streams(model: Path, threads: int, repeats: int) -> Series:
    """Each stream detects on one picture; they run at the same time."""
    picture = _picture()
    with (
        Detector(model, threads=threads, throughput=True, check=False, cache=False) as detector,
        ThreadPoolExecutor(max(STREAMS)) as pool,
    ):
        works = {n: partial(_together, pool, detector, picture, n) for n in STREAMS}
        return _series(f"streams, {model.name}", works, repeats)


def _together(pool: ThreadPoolExecutor, detector: Detector, picture: Image, streams: int) -> None:
    list(pool.map(detector, [picture] * streams))


def _over_classes(threads: int, repeats: int) -> Iterator[Series]:
    picture = _picture()
    with tempfile.TemporaryDirectory() as folder:
        works = {}
        for n in CLASSES:
            checkpoint, file = Path(folder, f"{n}.pth"), Path(folder, f"{n}.onnx")
            random_checkpoint(checkpoint, "resnet18", n, picture)
            settings = ExportSettings(imgsz=SIDE, drop_classes="none", tensorrt=False)
            export_checkpoint(checkpoint, file, settings)
            detector = Detector(file, threads=threads, check=False, cache=False)
            works[n] = partial(detector, picture)
        yield _series(f"classes, resnet18 at {SIDE}", works, repeats)


def _over_detections(repeats: int) -> Series:
    """NMS alone: 20,000 candidates of one class, whose boxes do not overlap."""
    side = np.arange(20_000, dtype=np.float32)
    boxes = np.stack([2 * side, 2 * side, 2 * side + 1, 2 * side + 1], axis=1)
    scores = np.random.default_rng(0).uniform(0.1, 1, (len(boxes), 1)).astype(np.float32)
    works = {}
    for n in KEPT:
        thresholds = Thresholds(
            score_thresh=0.05, nms_thresh=0.5, detections_per_img=n, topk_candidates=1000
        )
        works[n] = partial(detect_from_candidates, boxes, scores, thresholds)
    return _series("detections of an image, NMS alone", works, 4 * repeats)


def _series(name: str, works: dict[int, Any], repeats: int) -> Series:
    """The fastest of some runs of each, in turns."""
    arms = {str(n): partial(milliseconds, work) for n, work in works.items()}
    times = alternate(arms, repeats, warm_up=1)
    return Series(name, list(works), [float(min(times[str(n)])) for n in works])


def _picture() -> Image:
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)


def _draw(found: Sequence[Series], path: Path) -> None:
    groups: dict[str, list[Series]] = {}
    for series in found:
        groups.setdefault(series.name.partition(",")[0], []).append(series)
    figure = load_matplotlib().Figure(figsize=(12, 6.4))
    places = figure.subplots(2, 3).flat
    for axes in places[len(groups) :]:
        axes.set_axis_off()
    for axes, (name, group) in zip(places, groups.items(), strict=False):
        for series in group:
            slope, start = series.line
            ends = np.array([0, max(series.work)])
            (dots,) = axes.plot(series.work, series.ms, "o", markersize=4, label=series.name)
            axes.plot(ends, slope * ends + start, color=dots.get_color(), linewidth=1)
        axes.set(xlabel=name, ylabel="ms")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.2)
        axes.legend(fontsize=6, frameon=False)
    figure.subplots_adjust(hspace=0.35, wspace=0.25)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", bbox_inches="tight")


if __name__ == "__main__":
    sys.exit(main())
