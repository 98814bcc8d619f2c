"""What `--tiles` finds of small objects, and what it costs.

    python -m retinart.benchmarks.tiles model.onnx --images DIR --annotations FILE
    python -m retinart.benchmarks.tiles model.onnx --images DIR --annotations FILE --grid 8
    python -m retinart.benchmarks.tiles model.onnx --videos VIDEO...

With `--grid`, the pictures become large pictures with small objects: a grid of so many places in
each direction, of which some chosen at random hold a picture at a fraction of its size. The rest
has the pictures' median colour. COCO's AP counts at most 100 detections of a picture, so `--filled`
has to keep the objects of a picture below that. Each frame is timed in one process, with all
settings in turn on the same frame.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retinart.benchmarks.program import new_parser, run
from retinart.engine.common.table import Table
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.evaluate import evaluate, points
from retinart.engine.media.images import Image, read_image
from retinart.engine.media.video import VideoReader
from retinart.engine.tiles.grid import Tiles

_SURE = 0.3
_FIGURES = ("AP", "AP50", "AP_small", "AP_medium", "AP_large")


def main(argv: Sequence[str] | None = None) -> int:
    """Print tables. Returns the exit code."""
    parser = new_parser("benchmarks.tiles", __doc__)
    parser.add_argument("model", type=Path, help="an ONNX file of retinart")
    parser.add_argument("--images", type=Path, metavar="DIR")
    parser.add_argument("--annotations", type=Path, metavar="FILE")
    parser.add_argument("--videos", type=Path, nargs="+", default=[], metavar="VIDEO")
    parser.add_argument("--tiles", nargs="+", default=["2x2", "3x3", "4x4"], metavar="RxC|SIZE")
    parser.add_argument("--overlap", type=float, default=Tiles.overlap)
    parser.add_argument("--grid", type=int, default=0, help="places in each direction")
    parser.add_argument("--filled", type=int, default=6, help="pictures of a grid")
    parser.add_argument("--shrink", type=int, default=4, help="divisor of a picture's sides")
    parser.add_argument("--frames", type=int, default=60, help="frames of each video")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    if (args.images is None) != (args.annotations is None) or not (args.images or args.videos):
        raise BadInput("there is nothing to measure", fix="Give `images` and `annotations`")
    settings = [None, *(Tiles.parse(text, args.overlap) for text in args.tiles)]
    names = ["none", *args.tiles]
    with ExitStack() as stack:
        detectors = [
            stack.enter_context(Detector(args.model, tiles=tiles, max_det=100))
            for tiles in settings
        ]
        if args.images is not None:
            images, annotations = args.images, args.annotations
            if args.grid:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                images, annotations = _grids(args, folder)
            _print_accuracy(names, settings, detectors, images, annotations)
        for video in args.videos:
            _print_video(names, settings, detectors, video, args.frames)


def _print_accuracy(
    names: Sequence[str],
    settings: Sequence[Tiles | None],
    detectors: Sequence[Detector],
    images: Path,
    annotations: Path,
) -> None:
    pictures = [read_image(item.path) for item in load_coco(annotations, images).images]
    ms = _times(detectors, pictures)
    rows = []
    for name, tiles, detector, time_ms in zip(names, settings, detectors, ms, strict=True):
        figures = evaluate(detector, annotations, images, quiet=True).figures
        shape = (pictures[0].shape[0], pictures[0].shape[1])
        rows.append(
            (
                name,
                1 + len(tiles.of(shape) if tiles else []),
                *(points(figures[f]) for f in _FIGURES),
                f"{time_ms:.1f}",
                f"{time_ms / ms[0]:.2f}",
            )
        )
    head = ("tiles", "inferences", *_FIGURES, "ms", "times as long")
    sizes = sorted({f"{p.shape[1]}x{p.shape[0]}" for p in pictures})
    print(f"{len(pictures)} pictures of {', '.join(sizes[:3])}{' ...' if len(sizes) > 3 else ''}\n")
    print(Table(head=head, rows=rows).markdown())


def _print_video(
    names: Sequence[str],
    settings: Sequence[Tiles | None],
    detectors: Sequence[Detector],
    video: Path,
    count: int,
) -> None:
    with VideoReader(video) as frames:
        pictures = [frame.image for frame in islice(frames, count)]
    shape = (pictures[0].shape[0], pictures[0].shape[1])
    ms = _times(detectors, pictures)
    rows = []
    for name, tiles, detector, time_ms in zip(names, settings, detectors, ms, strict=True):
        found = sum(int((detector(p).confidence >= _SURE).sum()) for p in pictures)
        cells = (name, 1 + len(tiles.of(shape) if tiles else []), found)
        rows.append((*cells, f"{time_ms:.1f}", f"{time_ms / ms[0]:.2f}"))
    print(f"\n{video.name}: {len(pictures)} frames of {shape[1]}x{shape[0]}\n")
    head = ("tiles", "inferences", f"detections from {_SURE:g} on", "ms", "times as long")
    print(Table(head=head, rows=rows).markdown())


def _times(detectors: Sequence[Detector], pictures: Sequence[Image]) -> list[float]:
    """The median milliseconds of a picture with each detector, in turn on each picture."""
    for detector in detectors:
        detector(pictures[0])
    times: list[list[float]] = [[] for _ in detectors]
    for picture in pictures:
        for detector, ms in zip(detectors, times, strict=True):
            begin = time.perf_counter()
            detector(picture)
            ms.append(1000 * (time.perf_counter() - begin))
    return [float(np.median(ms)) for ms in times]


def _grids(args: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Large pictures with small objects, and their annotations."""
    document = json.loads(args.annotations.read_text("utf-8"))
    listed, rng = document["images"], np.random.default_rng(0)
    n, shrink = args.grid, args.shrink
    images, boxes = list[dict[str, Any]](), list[dict[str, Any]]()
    for begin in range(0, len(listed) - args.filled + 1, args.filled):
        canvas, places = None, rng.permutation(n * n)[: args.filled].tolist()
        for place, entry in zip(places, listed[begin : begin + args.filled], strict=True):
            picture = read_image(args.images / entry["file_name"])
            h, w = picture.shape[0] // shrink, picture.shape[1] // shrink
            if canvas is None:
                canvas = np.empty((n * h, n * w, 3), np.uint8)
                canvas[:] = np.median(picture.reshape(-1, 3), axis=0)
            small = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
            top, left = h * (place // n), w * (place % n)
            canvas[top : top + h, left : left + w] = small
            for one in document["annotations"]:
                if one["image_id"] == entry["id"]:
                    x, y, width, height = (value / shrink for value in one["bbox"])
                    boxes.append(
                        {
                            **one,
                            "id": len(boxes) + 1,
                            "image_id": len(images) + 1,
                            "bbox": [x + left, y + top, width, height],
                            "area": width * height,
                        }
                    )
        assert canvas is not None
        name = f"{len(images) + 1}.png"
        cv2.imwrite(str(folder / name), canvas)
        height, width = canvas.shape[:2]
        images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width})
    made = {"images": images, "annotations": boxes, "categories": document["categories"]}
    annotations = folder / "instances.json"
    annotations.write_text(json.dumps(made))
    return folder, annotations


if __name__ == "__main__":
    raise SystemExit(main())
