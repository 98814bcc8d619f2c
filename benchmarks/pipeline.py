"""What the pipeline costs: a whole detection job against inference alone, live, and for long.

    python -m retinart.benchmarks.pipeline MODEL [MODEL ...] --video VIDEO --frames 300 --pairs 5
    python -m retinart.benchmarks.pipeline MODEL --video VIDEO --live 60
    python -m retinart.benchmarks.pipeline MODEL --video VIDEO --long 20000

"Inference alone" is `Detector.infer` (network, NMS, boxes back into the frame) in a loop over
frames that were decoded and resized before. The job decodes, resizes, infers, draws, encodes an
annotated video and writes JSON lines; its rate counts everything from the call to its return. The
two run in turn, A B B A, and each pair gives a ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retinart.benchmarks.measures import median, median_of_ratios
from retinart.benchmarks.pipeline_live import run_live, run_long
from retinart.engine.detect_job import DetectJob, run_job
from retinart.engine.detector import Detector
from retinart.engine.errors import RetinartError
from retinart.engine.files import atomic_path
from retinart.engine.frame import Position
from retinart.engine.resize import Resized
from retinart.engine.stream import Batch, StreamSettings
from retinart.engine.summary import DetectSummary
from retinart.engine.timing import StageClock
from retinart.engine.video import VideoReader

_HELD = 32  # resized frames that inference alone goes round
Batches = list[tuple[Batch, list[Resized]]]


@dataclass(frozen=True)
class _Rate:
    """Frames a second, and what a frame cost all threads of this process."""

    fps: float
    cpu_ms: float

    @classmethod
    def since(cls, start: float, work: float, frames: int) -> _Rate:
        seconds, cpu = time.perf_counter() - start, time.process_time() - work
        return cls(fps=frames / seconds, cpu_ms=1000 * cpu / frames)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print Markdown, write JSON. Returns the exit code."""
    args = _parser().parse_args(argv)
    result = []
    try:
        for model in args.model:
            with Detector(model, threads=args.threads) as detector:
                size = "x".join(map(str, detector.info.resize.canvas or ("dynamic",)))
                print(f"## {model.stem}, {size}, {args.video.name}, {args.threads} threads\n")
                if args.live:
                    result.append(run_live(detector, args.video, seconds=args.live))
                elif args.long:
                    result.append(run_long(detector, args.video, frames=args.long))
                else:
                    pairs = compare(detector, args.video, frames=args.frames, pairs=args.pairs)
                    result.append(pairs)
                print()
        if args.out is not None:
            with atomic_path(args.out) as temporary:
                temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except RetinartError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def compare(detector: Detector, video: Path, *, frames: int, pairs: int) -> dict[str, Any]:
    """Rates of inference alone and of whole jobs, in turn; prints them and the stages' times.

    Args:
        frames: for each of the two in a pair; the video must have as many.
        pairs: of measurements.
    """
    with VideoReader(video) as reader:
        images = [frame.image for frame, _ in zip(reader, range(_HELD), strict=False)]
    batches = [detector.resize([image]) for image in images]
    _alone(detector, batches, 10)
    alone: list[_Rate] = []
    whole: list[_Rate] = []
    summary = DetectSummary()
    for pair in range(pairs):
        for job_first in ((pair % 2 == 1), (pair % 2 == 0)):
            if job_first:
                rate, summary = _job(detector, video, frames)
                whole.append(rate)
            else:
                alone.append(_alone(detector, batches, frames))
    ratio = median_of_ratios([r.fps for r in whole], [r.fps for r in alone])
    print("| median (95%) | inference alone | the whole job |\n|---|---|---|")
    for name, of in (("frames a second", "fps"), ("CPU ms a frame, all threads", "cpu_ms")):
        values = (median([getattr(r, of) for r in rates]) for rates in (alone, whole))
        print(f"| {name} | {next(values)} | {next(values)} |")
    print(f"| ratio of rates, by pair | | {ratio} |")
    print(f"\n{pairs} pairs of {frames} frames; the last job:\n\n```\n{summary.table()}\n```")
    return {
        "frames": frames,
        "alone": [asdict(rate) for rate in alone],
        "job": [asdict(rate) for rate in whole],
        "ratio": asdict(ratio),
        "last_job": {k: v for k, v in summary.to_json().items() if k != "outputs"},
    }


def _alone(detector: Detector, batches: Batches, frames: int) -> _Rate:
    """The rate of inference alone."""
    start, work = time.perf_counter(), time.process_time()
    for i in range(frames):
        batch, resized = batches[i % len(batches)]
        detector.infer(batch, resized, StageClock())
    return _Rate.since(start, work, frames)


def _job(detector: Detector, video: Path, frames: int) -> tuple[_Rate, DetectSummary]:
    """The rate of a job, and its summary."""
    settings = StreamSettings(end=Position(frames=frames))
    with tempfile.TemporaryDirectory() as folder:
        job = DetectJob(source=str(video), out=Path(folder), stream=settings)
        start, work = time.perf_counter(), time.process_time()
        summary = run_job(detector, job)
        return _Rate.since(start, work, summary.frames), summary


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", type=Path, nargs="+")
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="inference threads")
    parser.add_argument(
        "--live", type=float, metavar="SECONDS", help="a camera on loopback instead"
    )
    parser.add_argument("--long", type=int, metavar="FRAMES", help="look for growth")
    parser.add_argument("--out", type=Path, metavar="FILE", help="figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
