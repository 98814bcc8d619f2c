"""AP against milliseconds an image, over scales and precisions of checkpoints.

Every step (an export, a calibration, an evaluation, a timing) is kept under the hash of its inputs.
So a stopped run goes on, and a run with one more scale measures only that. The precisions of one
checkpoint and scale are timed in turn with each other.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from retinart.benchmarks.latency.scales import Scale, Scales, ScaleSteps
from retinart.benchmarks.timing import machine
from retinart.benchmarks.timing.machine import Machine
from retinart.benchmarks.timing.results import ModelTimes
from retinart.benchmarks.timing.settings import CurveSettings
from retinart.benchmarks.timing.source_hash import hash_of
from retinart.benchmarks.timing.steps import Steps
from retinart.engine.common.files import sha256
from retinart.engine.common.folders import own_folder
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.evaluation.annotation_files import annotations_sha256
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.evaluate import check_objects, evaluate, existing

WITHIN = 0.01  # AP below the best, of the point that is named


@dataclass(frozen=True)
class Point:
    """A row of a scale's benchmark, with its AP."""

    scale: Scale
    model: ModelTimes

    @property
    def name(self) -> str:
        """What texts call it."""
        return f"{self.scale.checkpoint} {self.model.precision} {self.scale.imgsz}"

    @property
    def ms(self) -> float:
        """The median time of an image."""
        return self.model.ms["total"].p50

    @property
    def ap(self) -> float:
        """0 to 1.

        Raises:
            BadInput: the file holds none, as nothing was measured.
        """
        return existing({"AP": self.model.ap}, "AP")


@dataclass(frozen=True, kw_only=True)
class Curve(Scales):
    """All that `retinart curve` found.

    Attributes:
        images: annotated images that AP is of.
        timings: each checkpoint and scale.
        taken_over: steps that an earlier run had made.
        command: that reproduces it.
    """

    SCHEMA: ClassVar[int] = 1
    AGAIN: ClassVar[str] = "Run the curve again with this version"

    machine: Machine
    images: int
    annotations_sha256: str
    timings: tuple[Scale, ...]
    taken_over: int
    command: str = ""

    @property
    def points(self) -> list[Point]:
        """Each checkpoint at each scale in each precision."""
        return [Point(scale, model) for scale in self.timings for model in scale.benchmark.models]


def measure_curve(checkpoints: Sequence[Path], out: Path, settings: CurveSettings) -> Curve:
    """Export, calibrate, evaluate and time every point.

    Args:
        checkpoints: files that `retinart export` reads; a line each, called by the file's stem.
        out: folder for models/ and for done.json, which holds the finished steps.
        settings: what to measure.

    Raises:
        BadInput: a checkpoint or the data cannot be used, or two checkpoints have one name.
        CheckFailed: as `export_checkpoint` and `calibrate`.
        MissingDependency: pycocotools is not installed, or no model can run here.
    """
    names = [path.stem for path in checkpoints]
    if len(set(names)) < len(names):
        raise BadInput("two checkpoints have one name", fix="Rename one of the files")
    if importlib.util.find_spec("pycocotools") is None:
        raise MissingDependency.package("pycocotools", "export,eval,report", "A curve")
    for path in checkpoints:
        if not path.is_file():
            raise BadInput(f"there is no checkpoint at {path}", fix="Check the path")
    with own_folder(out):
        maker = _Maker(out, settings)
        pairs = itertools.product(checkpoints, settings.imgsz)
        timings = tuple(maker.scale(checkpoint, size) for checkpoint, size in pairs)
    return Curve(
        machine=machine.describe("torch", "onnx"),
        images=len(maker.annotated),
        annotations_sha256=annotations_sha256(settings.annotations, settings.images),
        timings=timings,
        taken_over=maker.steps.taken_over,
    )


def fastest(points: Sequence[Point]) -> Point:
    """The fastest point within 1 AP of the best one."""
    best = max(point.ap for point in points)
    return min((p for p in points if p.ap >= best - WITHIN), key=lambda p: p.ms)


def is_pareto(point: Point, points: Sequence[Point]) -> bool:
    """No other point is as fast and as good, and better in one of the two."""
    return not any(
        other.ms <= point.ms
        and other.ap >= point.ap
        and (other.ms, other.ap) != (point.ms, point.ap)
        for other in points
    )


class _Maker:
    """Makes the scales of a curve by steps that are made once."""

    def __init__(self, out: Path, settings: CurveSettings) -> None:
        self._settings, self._models = settings, out / "models"
        self.steps = Steps(out / "done.json", job="curve")
        self._scales = ScaleSteps(
            self.steps,
            self._models,
            images=settings.calibration_images,
            num=settings.calibration_num,
            listed_in=settings.calibration_listed_in,
        )
        dataset = load_coco(settings.annotations, settings.images)
        check_objects(dataset)  # seen before the exports and the timings
        self.annotated = [image.path for image in dataset.images]
        self._inputs = {
            "annotations": annotations_sha256(settings.annotations, settings.images),
            "images": hash_of(self.annotated),
            **self._scales.code,
        }

    def scale(self, checkpoint: Path, size: int) -> Scale:
        """A checkpoint at a scale, timed and evaluated in each precision."""
        s = self._settings
        fp32 = self._scales.fp32(checkpoint, size)
        paths = [self._scales.int8(fp32) if p == "int8" else fp32 for p in s.precisions]
        scale = self._scales.time(checkpoint, size, paths, s.timing(checkpoint))
        models = tuple(self._with_ap(model) for model in scale.benchmark.models)
        return replace(scale, benchmark=replace(scale.benchmark, models=models))

    def _with_ap(self, model: ModelTimes) -> ModelTimes:
        path, s = self._models / model.file, self._settings

        def make() -> dict[str, float | None]:
            with Detector(path, compute=model.compute, threads=s.threads) as detector:
                return evaluate(detector, s.annotations, s.images).figures

        inputs = {"model": sha256(path), "compute": model.compute, **self._inputs}

        def holds(result: Any) -> bool:
            return isinstance(result, dict) and {"AP", "AP50"} <= result.keys()

        figures = self.steps.once("evaluate", path.name, inputs, make, holds)
        return replace(model, ap=figures["AP"], ap50=figures["AP50"])
