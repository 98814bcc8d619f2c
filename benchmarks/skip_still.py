"""What `detect --skip-still` saves on videos, and what it changes in their detections.

    python -m retinart.benchmarks.skip_still model.onnx VIDEO... --thresholds 4 8 16

Every video runs once on every frame and once with each threshold, in one detector for throughput.
Detections from 0.3 on are compared, frame by frame: two belong together if their classes are the
same and their boxes overlap by half. One that passes 0.3 in one run alone differs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from retinart.benchmarks.program import new_parser, run
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
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    rows = []
    with Detector(args.model, throughput=True) as detector:
        for video in args.videos:
            _go(detector, video, StreamSettings(end=None, max_fps=1))  # warm up
            everything, _, rate = _go(detector, video, StreamSettings())
            rows.append((video.name, "every frame", "", f"{rate:.1f}", "", ""))
            for threshold in args.thresholds:
                settings = StreamSettings(skip_still=threshold, max_skip=args.max_skip)
                found, still, faster = _go(detector, video, settings)
                total = Match()
                for one, other in zip(everything, found, strict=True):
                    total += match(_sure(one), _sure(other), _ALIKE)
                rows.append(
                    (
                        video.name,
                        f"{threshold:g}",
                        f"{still / len(found):.1%}",
                        f"{faster:.1f}",
                        f"{faster / rate:.2f}" if still else "-",
                        f"{total.missing + total.extra} of {total.counted}",
                    )
                )
    head = ("video", "T", "skipped", "frames/s", "times as fast", "detections that differ")
    print(Table(head=head, rows=rows).markdown())


def _sure(found: Detections) -> Detections:
    return found[found.confidence >= _LEAST]


def _go(
    detector: Detector, video: Path, settings: StreamSettings
) -> tuple[list[Detections], int, float]:
    """The detections of each frame, how many frames were still, and frames a second."""
    found, still = list[Detections](), 0
    begin = time.perf_counter()
    with Stream(detector.runner, [str(video)], settings) as stream:
        for step in stream:
            found += step.found
            still += sum(step.still)
    return found, still, len(found) / (time.perf_counter() - begin)


if __name__ == "__main__":
    raise SystemExit(main())
