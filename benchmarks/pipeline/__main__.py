"""What the pipeline costs: a whole detection job against inference alone, live, and for long.

    python -m retinart.benchmarks.pipeline MODEL [MODEL ...] --video VIDEO --frames 300 --turns 6
    python -m retinart.benchmarks.pipeline MODEL --video VIDEO --live 60
    python -m retinart.benchmarks.pipeline MODEL --video VIDEO --long 20000

"Inference alone" is network, NMS and boxes back into the frame, in a loop over frames that were
decoded and resized before. "Alone, N at once" is the same with `throughput`, which has N frames
under way, as `retinart detect` has for files. The job uses that detector. It decodes, resizes,
infers, draws, encodes an annotated video and writes JSON lines, and its rate counts everything from
the call to its return. The three run in turn, and then the other way round; each turn gives ratios.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retinart.benchmarks.pipeline.live import first_frames, run_live, run_long
from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing.alternate import alternate
from retinart.benchmarks.timing.statistics import median, median_of_ratios
from retinart.engine.common.files import write_json
from retinart.engine.common.table import Table
from retinart.engine.common.timing import StageClock
from retinart.engine.detector import Detector
from retinart.engine.job.job import run_job
from retinart.engine.job.settings import DetectJob
from retinart.engine.job.summary import DetectSummary
from retinart.engine.media.settings import Position, StreamSettings
from retinart.engine.runtime.runner import Pending, Prepared

_HELD = 32  # resized frames that inference alone goes round


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
    return run(_work, _parser(), argv)


def _work(args: argparse.Namespace) -> None:
    result = []
    for model in args.model:
        files = bool(args.long)  # as `retinart detect` has it for them
        with Detector(model, threads=args.threads, throughput=files) as detector:
            size = "x".join(map(str, detector.info.resize.canvas or ("dynamic",)))
            print(f"## {model.stem}, {size}, {args.video.name}, {args.threads} threads\n")
            if args.live:
                result.append(run_live(detector, args.video, seconds=args.live))
            elif args.long:
                result.append(run_long(detector, args.video, frames=args.long))
            else:
                with Detector(model, threads=args.threads, throughput=True) as fast:
                    found = compare(
                        detector, fast, args.video, frames=args.frames, turns=args.turns
                    )
                    result.append(found)
            print()
    if args.out is not None:
        write_json(args.out, result, indent=1)


def compare(
    detector: Detector, fast: Detector, video: Path, *, frames: int, turns: int
) -> dict[str, Any]:
    """Rates of inference alone and of whole jobs, in turn; prints them and the stages' times.

    Args:
        detector: for one frame at a time.
        fast: for several at once.
        video: it must have enough frames.
        frames: for each of the three in a turn.
        turns: of measurements.
    """
    images = first_frames(video, _HELD)
    batches, fast_batches = (
        [one.runner.prepare([image]) for image in images] for one in (detector, fast)
    )
    last, at_once = DetectSummary(), fast.runner.max_in_flight

    def job() -> _Rate:
        nonlocal last
        rate, last = _job(fast, video, frames)
        return rate

    arms: dict[str, Callable[[], _Rate]] = {
        "alone": lambda: _alone(batches, frames, 1),
        "alone_at_once": lambda: _alone(fast_batches, frames, at_once),
        "job": job,
    }
    _alone(batches, 10, 1)
    _alone(fast_batches, 10, at_once)
    rates = alternate(arms, turns, warm_up=0)
    fps, cpu = (
        {name: [getattr(rate, of) for rate in some] for name, some in rates.items()}
        for of in ("fps", "cpu_ms")
    )
    ratios = {name: median_of_ratios(fps["job"], fps[name]) for name in arms if name != "job"}
    table = Table(
        head=("median (95%)", "inference alone", f"alone, {at_once} at once", "the whole job"),
        rows=[
            ("frames a second", *map(median, fps.values())),
            ("CPU ms a frame, all threads", *map(median, cpu.values())),
            ("the job's rate to it, by turn", *ratios.values(), ""),
        ],
    )
    print(table.markdown())
    print(f"\n{turns} turns of {frames} frames; the last job:\n\n```\n{last.table()}\n```")
    return {
        "frames": frames,
        "at_once": at_once,
        "rates": {name: [asdict(rate) for rate in some] for name, some in rates.items()},
        "ratio_to": {name: asdict(ratio) for name, ratio in ratios.items()},
        "last_job": {k: v for k, v in last.to_json().items() if k != "outputs"},
    }


def _alone(batches: Sequence[Prepared], frames: int, at_once: int) -> _Rate:
    """The rate of inference alone, with so many frames under way."""
    under_way: deque[Pending] = deque()
    start, work = time.perf_counter(), time.process_time()
    for i in range(frames):
        if len(under_way) == at_once:
            under_way.popleft().result()
        under_way.append(batches[i % len(batches)].submit(StageClock()))
    while under_way:
        under_way.popleft().result()
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
    parser = new_parser("benchmarks.pipeline", __doc__)
    add = parser.add_argument
    add("model", type=Path, nargs="+", help="an ONNX file of retinart")
    add("--video", type=Path, required=True, help="file to run on")
    add("--frames", type=int, default=300, help="for each measurement")
    add("--turns", type=int, default=6, help="of measurements")
    add("--threads", type=int, default=2, help="of inference")
    add("--live", type=float, metavar="SECONDS", help="run on a camera on loopback instead")
    add("--long", type=int, metavar="FRAMES", help="run over so many frames, and look for growth")
    add("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
