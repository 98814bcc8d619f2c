"""What each way to resize costs a frame, and what it changes in the detections of a model.

    python -m retinart.benchmarks.resize model.onnx --images FOLDER --num 100

The ways are in `engine/model/interpolate.py`. A cost is the time of a whole frame at
the size that `--imgsz 800 --dynamic` gives, on one thread. For the detections the same file gets
images that are resized in its own way and in the two others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.alternate import alternate, milliseconds
from retinart.engine.common.table import Table
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import Match, Tolerance, match
from retinart.engine.media.images import Image, list_images, read_image
from retinart.engine.model.resize_rule import PAPER_RATIO, ResizeRule
from retinart.engine.model.variant import Interpolation

FORMS: tuple[Interpolation, ...] = get_args(Interpolation)
FRAMES = ((480, 640), (720, 1280), (1080, 1920), (2160, 3840))
_RULE = ResizeRule(
    short_side=800,
    max_size=int(800 * PAPER_RATIO),
    canvas=None,
    pad_multiple=32,
    pad_value=(104, 116, 124),
    interpolation="opencv",
)
CLOSE, NEAR = Tolerance(score=0.01, corner=1.0), Tolerance(score=0.05, corner=5.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Print two tables. Returns the exit code."""
    parser = new_parser("benchmarks.resize", __doc__)
    parser.add_argument("model", type=Path, nargs="*", help="an ONNX file of retinart")
    parser.add_argument("--images", help="a folder, file or glob")
    parser.add_argument("--num", type=int, default=100, help="of --images")
    parser.add_argument("--repeats", type=int, default=30, help="turns for the costs")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    here = machine.describe("pillow")
    print(
        f"{here.cpu}, OpenCV {here.versions.get('opencv-python-headless')}, "
        f"Pillow {here.versions.get('pillow')}\n"
    )
    print(costs(args.repeats).markdown())
    if args.model:
        images = [read_image(path) for path in list_images(args.images)[: args.num]]
        for model in args.model:
            table = changes(model, images)
            print(f"\n{table.title}\n\n{table.markdown()}")


def costs(repeats: int) -> Table:
    """Milliseconds a frame, at the medians of so many turns."""
    cv2.setNumThreads(1)
    noise, rows, rng = [machine.reference()], [], np.random.default_rng(0)
    rules = {form: replace(_RULE, interpolation=form) for form in FORMS}
    for height, width in FRAMES:
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        works = {form: partial(rule.apply, [image]) for form, rule in rules.items()}
        ms = alternate({form: partial(milliseconds, w) for form, w in works.items()}, repeats)
        medians = (f"{np.median(values):.1f}" for values in ms.values())
        size = _RULE.fit(height, width)
        rows.append((f"{width}x{height}", f"{size[1]}x{size[0]}", *medians))
        noise.append(machine.reference())
    print(f"The reference workload varied by {statistics.spread(noise):.0%}.\n")
    return Table(head=("frame", "resized to", *(f"{form} ms" for form in FORMS)), rows=rows)


def changes(model: Path, images: Sequence[Image]) -> Table:
    """Which detections of a model's own way to resize the other ways find again."""
    found: dict[str, list[Detections]] = {}
    with Detector(model) as detector:
        runner = detector.runner
        own = runner.info.resize.interpolation
        scales = [runner.info.resize.fit(*i.shape[:2])[0] / i.shape[0] for i in images]
        for form in FORMS:
            rule = replace(runner.info.resize, interpolation=form)
            runner.info = replace(runner.info, resize=rule)
            found[form] = [detector(image) for image in images]
            print(f"{model.name}: {form}", file=sys.stderr)
    total = sum(map(len, found[own]))
    rows: list[tuple[object, ...]] = []
    for form in (form for form in FORMS if form != own):
        close, near = (_compare(found[own], found[form], limits) for limits in (CLOSE, NEAR))
        rows.append(
            (form, sum(map(len, found[form])), f"{close.matched / total:.1%}",
             f"{near.matched / total:.1%}")
        )  # fmt: skip
    title = (
        f"{model.stem}: {total} detections with {own} in {len(images)} images, which it makes "
        f"{np.median(scales):.2f} times as large"
    )
    again = (f"found again within {t.score} and {t.corner:g} px" for t in (CLOSE, NEAR))
    head = ("resized with", "detections", *again)
    return Table(head=head, rows=rows, title=title)


def _compare(
    expected: Sequence[Detections], found: Sequence[Detections], limits: Tolerance
) -> Match:
    both = Match(matched=0, missing=0, extra=0, score_diff=0.0, corner_diff=0.0)
    for a, b in zip(expected, found, strict=True):
        both += match(a, b, limits)
    return both


if __name__ == "__main__":
    raise SystemExit(main())
