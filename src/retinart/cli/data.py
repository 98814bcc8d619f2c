"""Commands that run a model: detect, eval."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from retinart.engine.errors import BadInput


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add this module's commands to the parser."""
    running = argparse.ArgumentParser(add_help=False)
    running.add_argument("model", type=Path, help="ONNX file that `retinart export` wrote")
    running.add_argument("--runtime", choices=("auto", "openvino", "onnxruntime"), default="auto")
    running.add_argument("--device", default="CPU", help="OpenVINO device")
    running.add_argument("--threads", type=int, metavar="N")
    running.add_argument("--conf", type=float, metavar="T", help="instead of the file's")
    running.add_argument("--iou", type=float, metavar="T", help="instead of the file's")
    running.add_argument("--max-det", type=int, metavar="N", help="instead of the file's")

    detect = commands.add_parser(
        "detect",
        parents=[running, common],
        help="detect on an image, a folder, a glob or a video file",
        description="Writes annotated images or video and detections.jsonl, a line for each image "
        "or frame, with boxes in pixels of the source.",
    )
    detect.add_argument("source")
    detect.add_argument("--out", type=Path, default=Path("runs/detect"), metavar="DIR")
    detect.add_argument(
        "--coco",
        type=Path,
        metavar="FILE",
        help="COCO results as well: image_id is the number that the file is named after, if all "
        "are named after different numbers, else the index of the image or frame, from 0; "
        "category_id is the class index, from 0",
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
        "--strict", action="store_true", help="exit 1 when a file or a frame could not be read"
    )
    detect.set_defaults(run=_detect)

    evaluate = commands.add_parser(
        "eval", parents=[running, common], help="COCO accuracy on annotated images"
    )
    evaluate.add_argument("--images", type=Path, required=True, metavar="DIR")
    evaluate.add_argument("--annotations", type=Path, required=True, metavar="FILE")
    evaluate.add_argument("--json", action="store_true", help="for machines")
    evaluate.set_defaults(run=_eval, extra="eval")


def _detector(args: argparse.Namespace) -> Any:
    from retinart.engine.detector import Detector

    return Detector(
        args.model,
        runtime=args.runtime,
        conf=args.conf,
        iou=args.iou,
        max_det=args.max_det,
        device=args.device,
        threads=args.threads,
    )


def _detect(args: argparse.Namespace) -> int:
    from retinart.engine.detect_job import DetectJob, run_job

    with _detector(args) as detector:
        job = DetectJob(
            source=args.source,
            out=args.out,
            coco=args.coco,
            csv=args.csv,
            draw_conf=args.draw_conf,
        )
        summary = run_job(detector, job)
    print(summary.clock.table(), file=sys.stderr)
    for path, why in summary.skipped:
        print(f"skipped {path}: {why}", file=sys.stderr)
    if summary.ended_early:
        print(
            f"the video ended early: {summary.frames} of {summary.announced} frames could be "
            "decoded, and those are kept",
            file=sys.stderr,
        )
    print(
        f"{summary.frames} {'images' if summary.announced is None else 'frames'}, "
        f"{summary.detections} detections, {len(summary.skipped)} skipped",
        file=sys.stderr,
    )
    for path in summary.outputs:
        print(path)
    if summary.interrupted:
        print("interrupted; what was done until then is kept", file=sys.stderr)
        return 130
    return 1 if args.strict and (summary.skipped or summary.ended_early) else 0


def _eval(args: argparse.Namespace) -> int:
    from retinart.benchmarks.evaluate import evaluate, table

    if not args.images.is_dir():
        raise BadInput(
            f"there is no folder {args.images}", fix="Give the annotations' image folder"
        )
    with _detector(args) as detector:
        result = evaluate(detector, args.annotations, args.images)
    for line in result.problems:
        print(line, file=sys.stderr)
    for path, why in result.skipped:
        print(f"skipped {path}: {why}", file=sys.stderr)
    print(json.dumps(result.to_json(), indent=1) if args.json else table(result))
    return 0
