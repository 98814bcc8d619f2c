"""`retinart detect`: detect on images, videos, cameras and network streams."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinart.cli.running import open_detector, running_options
from retinart.engine.errors import BadInput

if TYPE_CHECKING:
    from retinart.engine.job.summary import DetectSummary

_INTERRUPTED, _TERMINATED = 130, 143  # 128 and the signal's number, as a shell has it


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart detect` to the parser."""
    running = running_options()
    detect = commands.add_parser(
        "detect",
        parents=[running, common],
        help="detect on images, video files, webcams and network streams",
        description="Writes annotated images or videos, detections.jsonl, a line for each image or "
        "frame as it is done, with boxes in pixels of the source, and summary.json with counts and "
        "times. Of files every frame is taken, in order; of live sources always the newest, and "
        "older ones are dropped and counted. Ctrl-C and SIGTERM end it in order, with exit code "
        "130 or 143.",
    )
    detect.add_argument(
        "source",
        nargs="+",
        help="an image, a folder, a glob, numbered images (frame_%%04d.png), a video, a webcam's "
        "number, or an rtsp:// or http:// address; several are batched together",
    )
    detect.add_argument("--out", type=Path, default=Path("runs/detect"), metavar="DIR")
    detect.add_argument(
        "--coco",
        type=Path,
        metavar="FILE",
        help="COCO results as well: image_id is the number that the file is named after, if all "
        "are named after different numbers, else the index of the image or frame, from 0, or with "
        "several sources the line of detections.jsonl, from 0; category_id is the class index, "
        "from 0",
    )
    detect.add_argument("--csv", type=Path, metavar="FILE", help="a row for each detection as well")
    detect.add_argument(
        "--draw-conf",
        type=float,
        default=0.3,
        metavar="T",
        help="draw what scores at least this (the files hold all; default %(default)s)",
    )
    detect.add_argument(
        "--strict",
        action="store_true",
        help="exit 1 when a file, a frame or a source was lost",
    )
    _add_stream_options(detect)
    detect.set_defaults(run=_detect)


def _add_stream_options(detect: argparse.ArgumentParser) -> None:
    detect.add_argument(
        "--no-copies", action="store_true", help="write no annotated images or videos"
    )
    detect.add_argument(
        "--gpu-resize", action="store_true", help="resize on the GPU; engines, for large frames"
    )
    detect.add_argument("--show", action="store_true", help="show them in a window; q closes it")
    detect.add_argument("--track", action="store_true", help="give objects ids through the frames")
    detect.add_argument(
        "--stats",
        type=float,
        default=60.0,
        metavar="S",
        help="print the figures so far every S seconds: counts, stages, ages, queues; 0 for never "
        "(default %(default)g)",
    )
    detect.add_argument("--every", type=int, default=1, metavar="N", help="one frame in N")
    detect.add_argument(
        "--max-fps",
        type=float,
        metavar="F",
        help="frames a second at most, by the video's own time, or by the clock for live sources",
    )
    place = "in seconds (12.5) or frames (300f), of a live source since its first frame"
    detect.add_argument("--start", metavar="T", help=f"first frame, {place}")
    detect.add_argument("--end", metavar="T", help="end before this frame, given likewise")
    detect.add_argument(
        "--buffer",
        type=int,
        metavar="N",
        help="frames that may wait before each stage; default 2, and with a live source 0 before "
        "the detector, which then gets the newest when it is free",
    )
    detect.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds to wait for an address or its next frame before connecting again "
        "(default %(default)s)",
    )
    detect.add_argument(
        "--max-retries",
        type=int,
        default=5,
        metavar="N",
        help="attempts to connect again, without a frame in between, before a live source is given "
        "up; waits grow from 0.5 to 30 s; -1 never gives up (default %(default)s)",
    )


def _detect(args: argparse.Namespace) -> int:
    from retinart.engine.job.job import DetectJob, run_job
    from retinart.engine.job.stop import StopRequest, stop_on_signals
    from retinart.engine.media.frame import Position
    from retinart.engine.media.sources import is_live
    from retinart.engine.stream import StreamSettings

    job = DetectJob(
        source=args.source,
        out=args.out,
        coco=args.coco,
        csv=args.csv,
        draw_conf=args.draw_conf,
        copies=not args.no_copies,
        show=args.show,
        track=args.track,
        stats=args.stats,
        stream=StreamSettings(
            every=args.every,
            max_fps=args.max_fps,
            start=None if args.start is None else Position.parse(args.start),
            end=None if args.end is None else Position.parse(args.end),
            buffer=args.buffer,
            timeout=args.timeout,
            max_retries=args.max_retries,
        ),
    )
    files = not any(is_live(name) for name in args.source)
    more = {"throughput": files, "gpu_resize": args.gpu_resize}
    with open_detector(args, **more) as detector, stop_on_signals(StopRequest()) as stop:
        try:
            summary = run_job(detector, job, stop=stop)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return _TERMINATED if stop.reason == "SIGTERM" else _INTERRUPTED
    print(summary.table(), file=sys.stderr)
    for line in _said(summary):
        print(line, file=sys.stderr)
    for path in summary.outputs:
        print(path)
    if summary.interrupted:
        by = "" if summary.stop_reason == "Ctrl-C" else f" by {summary.stop_reason}"
        print(f"interrupted{by}; what was done until then is kept", file=sys.stderr)
        return _TERMINATED if summary.stop_reason == "SIGTERM" else _INTERRUPTED
    if summary.error is not None:
        print("stopped by an error; what was done until then is kept", file=sys.stderr)
        raise summary.error
    if summary.problems:
        raise summary.problems[0]
    if summary.ended == "lost":
        raise BadInput("no source is left", fix="Check them, or raise --timeout or --max-retries")
    return 1 if args.strict and summary.incomplete else 0


def _said(summary: DetectSummary) -> Iterator[str]:
    """What happened, in lines for people; the last one sums it up."""
    for path, why in summary.skipped:
        yield f"skipped {path}: {why}"
    for source in summary.sources:
        counts = source.counts
        if counts.ended == "early":
            yield (
                f"the video ended early: {counts.read} of {counts.announced} frames could be "
                "decoded, and those are kept"
            )
        if counts.ended == "lost":
            yield f"{source.name} was lost: {counts.why}"
    yield from summary.notes
    for problem in summary.problems:
        yield str(problem)
    yield summary.counts()
    yield (
        f"{summary.frames} {'images' if summary.images else 'frames'}, "
        f"{summary.detections} detections, {len(summary.skipped)} skipped"
    )
