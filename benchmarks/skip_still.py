"""What `detect --skip-still` saves on videos, and what it changes in their detections.

    python -m retinart.benchmarks.skip_still model.onnx VIDEO... --thresholds 4 8 16

Every video runs on every frame and with each threshold, in turn, in one detector for throughput.
The order turns around from round to round. The ratio of rates is the median over the rounds.
Detections from 0.3 on are compared, frame by frame: two belong together if their classes are the
same and their boxes overlap by half. One that passes 0.3 in one run alone differs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing.statistics import FEWEST, check_rounds, median, median_of_ratios
from retinart.engine.common.table import Table
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import Match, Tolerance, match
from retinart.engine.media.settings import StreamSettings
from retinart.engine.stream import Stream

_LEAST = 0.3
_ALIKE = Tolerance(iou=0.5)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table. Returns the exit code."""
    parser = new_parser("benchmarks.skip_still", __doc__)
    parser.add_argument("model", type=Path, help="an ONNX file of retinart")
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[4.0, 8.0, 16.0])
    parser.add_argument("--max-skip", type=float, default=StreamSettings.max_skip)
    parser.add_argument(
        "--repeats", type=int, default=FEWEST, metavar="N", help="rounds of a video"
    )
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    check_rounds(args.repeats)
    rows = list[Sequence[object]]()
    with Detector(args.model, throughput=True) as detector:
        for video in args.videos:
            _go(detector, video, StreamSettings(max_fps=1))  # warm up
            rows += _rows(detector, video, args)
    head = ("video", "T", "skipped", "frames/s", "times as fast (95%)", "detections that differ")
    print(Table(head=head, rows=rows).markdown())


def _rows(detector: Detector, video: Path, args: argparse.Namespace) -> Iterator[Sequence[object]]:
    """Every frame, and then each threshold."""
    every = StreamSettings()
    settings = [every] + [
        replace(every, skip_still=t, max_skip=args.max_skip) for t in args.thresholds
    ]
    runs: list[list[_Run]] = [[] for _ in settings]
    for number in range(args.repeats):
        for index in range(len(settings))[:: 1 if number % 2 == 0 else -1]:
            runs[index].append(_go(detector, video, settings[index]))
    seconds = [[run.seconds for run in some] for some in runs]
    everything = runs[0][0].found
    for setting, (first, *_), own in zip(settings, runs, seconds, strict=True):
        rate = f"{len(everything) / median(own).value:.0f}"
        if setting is every:
            yield video.name, "every frame", "", rate, "", ""
            continue
        total = Match()
        for one, other in zip(everything, first.found, strict=True):
            total += match(_sure(one), _sure(other), _ALIKE)
        yield (
            video.name,
            f"{setting.skip_still:g}",
            f"{first.still / len(everything):.1%}",
            rate,
            median_of_ratios(seconds[0], own) if first.still else "-",
            f"{total.missing + total.extra} of {total.counted}",
        )


def _sure(found: Detections) -> Detections:
    return found[found.confidence >= _LEAST]


class _Run(NamedTuple):
    """The detections of each frame, how many frames were still, and the time."""

    found: list[Detections]
    still: int
    seconds: float


def _go(detector: Detector, video: Path, settings: StreamSettings) -> _Run:
    found, still = list[Detections](), 0
    begin = time.perf_counter()
    with Stream(detector.runner, [str(video)], settings) as stream:
        for step in stream:
            found += step.found
            still += sum(step.still)
    return _Run(found, still, time.perf_counter() - begin)


if __name__ == "__main__":
    raise SystemExit(main())
