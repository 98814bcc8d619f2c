"""`retinart detect`: detect on images, videos, cameras and network streams."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinart.cli.fields import (
    add_max_pixels,
    add_results_out,
    describe_command,
    options_of,
    record_of,
)
from retinart.cli.on_ray import add_ray, check_ray, on_ray
from retinart.cli.running import add_running, open_detector
from retinart.engine.common import utc
from retinart.engine.common.option_names import with_flags
from retinart.engine.errors import BadInput

if TYPE_CHECKING:
    from retinart.engine.job.settings import ClipSettings, DetectJob
    from retinart.engine.job.stop import StopRequest
    from retinart.engine.job.summary import DetectSummary

DEFAULT_OUT = Path("runs/detect")
RESULTS = ("detections.jsonl", "events.jsonl", "summary.json")
# Options that need the frames themselves, or a stream of them, and their defaults.
_NOT_ON_RAY: tuple[tuple[str, Any], ...] = (
    ("audio", False), ("show", False), ("view", None), ("track", False), ("clip_on", None),
    ("metrics", None), ("sinks", []), ("stats", 0.0), ("skip_still", None), ("max_fps", None),
    ("buffer", None),
)  # fmt: skip
_INTERRUPTED, _TERMINATED = 130, 143  # 128 and the signal's number, as a shell has it
_POSITION = "in seconds (12.5) or frames (300f); for a live source, after its first frame"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart detect`."""
    from retinart.engine.runtime.options import EngineOptions

    describe_command(
        parser,
        "Detect objects. The command writes annotated images or videos, detections.jsonl with a "
        "line for each image or frame (boxes are in pixels of the source), and summary.json with "
        "counts and times. It takes every frame of a file, in order. Of a live source it takes the "
        "newest frame, and drops and counts older ones. Ctrl-C and SIGTERM end it in order, with "
        "exit code 130 or 143.",
        "retinart detect model.onnx video.mp4",
        "retinart detect model.onnx rtsp://camera/stream1 --track",
    )
    model = add_running(parser)
    options_of(model, EngineOptions)(
        "gpu_resize", "resize on the GPU, which pays for large frames; for engines only"
    )
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="an image, a folder without its subfolders, a glob, numbered images "
        "(frame_%%04d.png), a video, a webcam's number, or an rtsp:// or http:// address; several "
        "sources are batched together",
    )
    add_max_pixels(parser)
    add_ray(parser)
    _add_output(parser)
    _add_frames(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    from retinart.engine.common.address import DEFAULT as VIEW
    from retinart.engine.job.settings import DetectJob

    group = parser.add_argument_group("output")
    add_results_out(
        group,
        DEFAULT_OUT,
        "folder for all results; {start} in it, in --csv or in --coco becomes the start's time in "
        "UTC, such as 20261129T164200Z, so that a service manager can repeat the command",
    )
    add = options_of(group, DetectJob)
    add("copies", "write no annotated images or videos")
    add("audio", "keep the sound of a video in its annotated copy")
    add(
        "draw_conf",
        "score from which on a detection is drawn, and counted on stderr; the files hold all "
        "detections",
    )
    add("track", "give each object an id that it keeps through the frames")
    add("tracker", "what gives the ids with --track")
    add(
        "detections_file",
        "write no detections.jsonl, which grows without end; give another output, such as --sink",
    )
    add("csv", "also write a CSV file with a row for each detection", otherwise="no CSV file")
    add(
        "coco",
        "also write a JSON file with COCO results. Ids come from --annotations. Without it, "
        "category ids are COCO's if the model has COCO's 80 classes, and image ids are file names "
        "that are numbers; other results have class_index and image_index, from 0, instead",
        otherwise="no COCO file",
    )
    add(
        "annotations",
        "COCO file that lists the images; --coco has its ids, so that pycocotools takes both files",
        otherwise="no ids but COCO's own",
    )
    add("show", "show the annotated frames in a window; q closes it")
    add(
        "view",
        f"show the newest frames in a browser; without an address at {VIEW}, which only this "
        "machine can open; elsewhere a viewer needs the token in the printed link",
        otherwise="no page",
        nargs="?",
        const=VIEW,
        type=_address,
        metavar="ADDRESS:PORT",
    )
    _add_clips(group)
    add(
        "metrics",
        "serve the job's figures to Prometheus at /metrics there, and whether it is well and ready "
        "at /healthz and /readyz",
        otherwise="no metrics",
        type=_address,
        metavar="ADDRESS:PORT",
    )
    add(
        "sinks",
        "also send the JSON lines of frames and events there: POST to http:// or https://, publish "
        "at mqtt://HOST/TOPIC, or produce to kafka://HOST:PORT/TOPIC; may be given more than once; "
        "results that cannot be sent are dropped and counted",
        flag="--sink",
        otherwise="nowhere",
        action="append",
        nargs=None,
        metavar="URL",
    )
    add(
        "stats",
        "seconds between two tables of counts, times and queues on stderr, with one at the end; 0 "
        "prints none",
        metavar="SECONDS",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 when a file, a frame or a source was lost",
    )


def _add_clips(group: argparse._ActionsContainer) -> None:
    from retinart.engine.job.settings import ClipSettings

    add = options_of(group, ClipSettings)
    add(
        "clip_on",
        "with --track, write a short video of each event at the lines and in the zones, or of one "
        "kind of event, into the folder clips",
        default=None,
        otherwise="no clips",
    )
    add("pre", "seconds before an event that its clip shows", metavar="SECONDS")
    add(
        "post",
        "seconds after it; an event whose clip would overlap the one before extends that one",
        metavar="SECONDS",
    )
    add(
        "keep",
        "most gigabytes of all clips; the oldest clips are deleted first",
        otherwise="keep all",
        metavar="GB",
    )


def _clips(args: argparse.Namespace) -> ClipSettings | None:
    """The settings of clips; None where none are asked for.

    Raises:
        BadInput: an option of clips is given without `--clip-on`.
    """
    from retinart.engine.job.settings import ClipSettings

    if args.clip_on is not None:
        return record_of(ClipSettings, args)
    for name in ("pre", "post", "keep"):
        if getattr(args, name) != getattr(ClipSettings, name):
            raise BadInput(f"--{name} is for clips, and none are written", fix="Give --clip-on")
    return None


def _address(text: str) -> str:
    """The word after `--view` or `--metrics`; a source that stands there is named as one."""
    from retinart.engine.common.address import Address

    try:
        Address.parse(text)
    except BadInput as error:
        fix = f"{error.what}: put the source before this option"
        raise argparse.ArgumentTypeError(str(error) if ":" in text else fix) from None
    return text


def _add_frames(parser: argparse.ArgumentParser) -> None:
    from retinart.engine.media.settings import StreamSettings

    add = options_of(parser, StreamSettings, "frames")
    add("every", "take one frame in N")
    add(
        "max_fps",
        "most frames a second, by the video's own time, or by the clock for live sources",
        otherwise="no limit",
    )
    add("start", f"first frame, {_POSITION}", otherwise="the beginning", type=str, metavar="T")
    add(
        "end",
        "end before this frame, in seconds or frames",
        otherwise="the end",
        type=str,
        metavar="T",
    )
    add(
        "skip_still",
        "let a frame of a video take over the last result if it hardly differs from that frame: in "
        "each of 64 cells along its longer side, the mean grey changed by at most T of 255 levels",
        otherwise="detect on every frame",
        metavar="T",
    )
    add("max_skip", "seconds for which frames may take over a result, at most", metavar="SECONDS")
    add(
        "buffer",
        "frames that may wait before each stage; with 0 before the detector, it gets the newest "
        "frame when it is free",
        otherwise="2, and for live sources 0 before the detector and 1 behind it",
    )
    add = options_of(parser, StreamSettings, "live sources")
    add(
        "timeout",
        "seconds to wait for an address or its next frame before connecting again",
        metavar="SECONDS",
    )
    add(
        "max_retries",
        "attempts in a row to connect to a live source again before it is given up; the waits "
        "between them grow from 0.5 to 30 s; -1 never gives up",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.common.folders import results_folder
    from retinart.engine.job.job import run_job
    from retinart.engine.job.settings import DetectJob
    from retinart.engine.job.stop import StopRequest, stop_on_signals
    from retinart.engine.keep.areas import read_areas
    from retinart.engine.media.settings import Position, StreamSettings
    from retinart.engine.media.sources import is_live, is_one_picture

    ray, started = check_ray(args, _NOT_ON_RAY), utc.now()
    _put_start(args, started)
    start, end = (None if text is None else Position.parse(text) for text in (args.start, args.end))
    stream = record_of(StreamSettings, args, start=start, end=end)
    # the highest rate, unless frames must not get older, or there is one alone
    many = not any(is_live(name) for name in args.source) and not is_one_picture(args.source)
    more = {"throughput": many, "gpu_resize": args.gpu_resize}
    stop = StopRequest()
    try:
        with results_folder(args.out, DEFAULT_OUT, RESULTS, overwrite=args.overwrite) as out:
            areas = None if args.region is None else read_areas(args.region)
            more_of_job = {"stream": stream, "out": out, "areas": areas, "clips": _clips(args)}
            job = record_of(DetectJob, args, started=started, **more_of_job)
            _check_before_loading(job)
            if ray:
                summary = _run_on_ray(args, job, stop)
            else:
                with open_detector(args, **more) as detector, stop_on_signals(stop):
                    summary = run_job(detector, job, stop=stop)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _TERMINATED if stop.reason == "SIGTERM" else _INTERRUPTED
    if args.stats:
        print(f"{summary.table()}\n{summary.counts()}", file=sys.stderr)
    for line in _said(summary):
        print(with_flags(line, args.options), file=sys.stderr)
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
        raise BadInput(
            "every source was lost", fix="Check the sources, or raise --timeout or --max-retries"
        )
    return 1 if args.strict and summary.incomplete else 0


def _put_start(args: argparse.Namespace, started: datetime) -> None:
    """Put the time of the start in place of `{start}` in the paths of outputs."""
    if args.ray is not None and utc.START in str(args.out):
        raise BadInput(
            f"`out` has {utc.START}, and Ray does the work",
            why="with --ray, the same command goes on in the folder of the job that ended",
            fix=f"Give a folder without {utc.START}",
        )
    for name in ("out", "csv", "coco"):
        if (path := getattr(args, name)) is not None:
            setattr(args, name, utc.with_start(path, started))


def _run_on_ray(args: argparse.Namespace, job: DetectJob, stop: StopRequest) -> DetectSummary:
    from retinart.engine.cluster.job import RayJob, run_ray_job

    actor, pool = on_ray(args, throughput=True, gpu_resize=args.gpu_resize)
    on = RayJob(actor=actor, address=args.ray, pool=pool, overwrite=args.overwrite)
    return run_ray_job(dataclasses.replace(job, copies=False), on, stop=stop)


def _check_before_loading(job: DetectJob) -> None:
    """Refuse what cannot work before the model is loaded, which takes seconds."""
    from retinart.engine.media.sources import check_files

    check_files(job.source)
    if job.track:
        from retinart.engine.job.tracking import Trackers

        Trackers([])
    if job.areas is not None and not (job.areas.regions or (job.track and job.areas.counts)):
        fix = "Give `track`" if job.areas.counts else "Add some, or leave out `region`"
        raise BadInput("the file of areas has no regions", why="lines and zones count tracked "
                       "objects" if job.areas.counts else "", fix=fix)  # fmt: skip
    if job.show:
        from retinart.engine.job.display_window import Window

        Window("retinart")
    for url in job.sinks:
        from retinart.engine.sinks.open_sink import open_transport

        open_transport(url).close()
    if job.metrics is not None:
        from retinart.engine.metrics.server import check_prometheus

        check_prometheus()
    for name, address in (("view", job.view), ("metrics", job.metrics)):
        if address is not None:
            from retinart.engine.common.address import Address
            from retinart.engine.common.http_server import check_address

            check_address(Address.parse(address), name)


def _said(summary: DetectSummary) -> Iterator[str]:
    """What happened, in lines for people; the last one sums it up."""
    from retinart.engine.common.wording import counted

    for path, why in summary.skipped:
        yield f"skipped {path}: {why}"
    for source in summary.sources:
        counts = source.counts
        if counts.ended == "early":
            decoded = counts.read - counts.broken
            yield (
                f"the video ended early: {decoded} of {counts.announced} frames could be decoded, "
                "and those are kept"
            )
        elif counts.broken and not (source.live or summary.images):
            yield f"{source.name} has {counts.broken} damaged frames, which are left out"
        if counts.ended == "lost":
            yield f"{source.name} was lost: {counts.why}"
    yield from summary.notes
    for problem in summary.problems:
        yield str(problem)
    for index, tally in sorted(summary.tallies.items()):
        for name, text in tally.texts().items():
            yield f"{summary.sources[index].name}, {name}: {text}"
    yield from map(str, summary.sinks)
    if (clips := summary.clips) is not None:
        text = f"{counted(clips.written, 'clip')} of events"
        text += f", {clips.deleted} deleted to make room" if clips.deleted else ""
        yield text + (f", {clips.lost} lost: {clips.why}" if clips.lost else "")
    if summary.total("dropped"):
        yield summary.counts()
    yield summary.outcome()
