"""AP against milliseconds an image, over scales and precisions of checkpoints.

Every step (an export, a calibration, an evaluation, a timing) is kept under the hash of what it was
made from, so a run that was stopped goes on, and one with another scale measures that alone. The
precisions of one checkpoint and scale are timed in turn with each other.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retinart.benchmarks.latency.run import BenchmarkSettings, benchmark
from retinart.benchmarks.peers.find import LeftOut, find_peers
from retinart.benchmarks.timing import machine
from retinart.benchmarks.timing.steps import Steps, code_of_timing, hash_of
from retinart.benchmarks.timing.turns import STAGES
from retinart.calib.calibrate import calibrate
from retinart.calib.observe import choose_images
from retinart.calib.settings import CalibrationSettings
from retinart.engine.common.files import new_folder, sha256
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.evaluate import evaluate
from retinart.engine.media.images import list_images
from retinart.engine.model.info import Compute, read_info
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings

PRECISIONS = ("fp32", "int8")
WITHIN = 0.01  # AP below the best, of the point that is named


@dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """What to measure.

    Attributes:
        imgsz: shorter sides in pixels; inputs are 4:3, as `retinart export --imgsz` makes them.
        images: folder of the annotated images; the first of them are timed.
        annotations: COCO instances.
        calibration_images: folder, file or glob to take INT8's ranges from.
        calibration_num: how many of them.
        precisions: of files, "fp32" and "int8".
        compute: what float layers are computed in, each of these; see `Detector`.
        peers: names of peers to time beside the files of each checkpoint and scale.
        torchvision: folder that torchvision is imported from.
        num_images, repeats, threads: of the timing, as in `BenchmarkSettings`.
    """

    images: Path
    annotations: Path
    imgsz: tuple[int, ...] = (400, 500, 600, 700, 800)
    calibration_images: str | None = None
    calibration_num: int = 200
    precisions: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
    compute: tuple[Compute, ...] = ("fp32",)
    peers: tuple[str, ...] = ()
    torchvision: Path = Path("build/peers")
    num_images: int = 16
    repeats: int = 5
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("imgsz", "precisions", "compute"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise BadInput(f"{name} is {list(values)}", fix="Give each value once")
        _ = self.timing(None).wanted_peers  # these check the rest
        if "int8" in self.precisions and self.calibration_images is None:
            raise BadInput(
                "INT8 needs images to take ranges from",
                fix="Give --calibration-images, or --precisions fp32",
            )
        for path, there in ((self.images, self.images.is_dir()),
                            (self.annotations, self.annotations.is_file())):  # fmt: skip
            if not there:
                raise BadInput(f"there is no {path}", fix="Check --images and --annotations")

    def timing(self, checkpoint: Path | None) -> BenchmarkSettings:
        """How a checkpoint's files are timed."""
        return BenchmarkSettings(
            images=str(self.images), num_images=self.num_images, repeats=self.repeats,
            threads=self.threads, compute=self.compute, peers=self.peers, checkpoint=checkpoint,
            torchvision=self.torchvision,
        )  # fmt: skip


def measure_curve(
    checkpoints: Sequence[Path], out: Path, settings: CurveSettings
) -> dict[str, Any]:
    """Export, calibrate, evaluate and time every point; plain JSON types.

    Args:
        checkpoints: files that `retinart export` reads; a line each, called by the file's stem.
        out: folder for models/ and done.json, which holds the steps that are done.
        settings: what to measure.

    Raises:
        BadInput: a checkpoint or the data cannot be used, or two checkpoints have one name.
        CheckFailed: as `export_checkpoint` and `calibrate`.
        MissingDependency: pycocotools is not installed.
    """
    names = [path.stem for path in checkpoints]
    if len(set(names)) < len(names):
        raise BadInput("two checkpoints have one name", fix="Rename one of the files")
    if importlib.util.find_spec("pycocotools") is None:
        raise MissingDependency.package("pycocotools", "export,eval,report", "A curve")
    for path in checkpoints:
        if not path.is_file():
            raise BadInput(f"there is no checkpoint at {path}", fix="Check the path")
    with new_folder(out):
        steps = _Points(out, settings)
        points: list[dict[str, Any]] = []
        timings: list[dict[str, Any]] = []
        for checkpoint, size in itertools.product(checkpoints, settings.imgsz):
            found, timing = steps.points(checkpoint, size)
            points += found
            timings.append({"checkpoint": checkpoint.stem, "imgsz": size, **timing})
    return {
        "what": "AP on annotated images against ms an image from a decoded frame to final boxes",
        "machine": machine.describe("torch", "onnx"),
        "images": steps.annotated["images"],
        "annotations_sha256": steps.annotated["annotations"],
        "noise": max(point["noise"] for point in points),
        "fastest_within_1_ap": name(fastest(points)),
        "points": [{**point, "pareto": is_pareto(point, points)} for point in points],
        "timings": timings,
        "taken_over": steps.taken_over,
    }


def name(point: dict[str, Any]) -> str:
    """What to call a point."""
    return f"{point['checkpoint']} {point['precision']} {point['imgsz']}"


def fastest(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fastest point within 1 AP of the best one."""
    best = max(point["ap"] for point in points)
    close = [point for point in points if point["ap"] >= best - WITHIN]
    return min(close, key=lambda point: float(point["ms"]["p50"]))


def is_pareto(point: dict[str, Any], points: Sequence[dict[str, Any]]) -> bool:
    """No other point is as fast and as good, and better in one of the two."""
    mine = (-point["ms"]["p50"], point["ap"])
    for other in points:
        theirs = (-other["ms"]["p50"], other["ap"])
        if theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True)):
            return False
    return True


class _Points:
    """The points of a curve, by steps that are each made once."""

    def __init__(self, out: Path, settings: CurveSettings) -> None:
        self._settings, self._models = settings, out / "models"
        self._steps = Steps(out / "done.json", key="curve 2")
        # of all images where there are peers, as those that fit every peer are chosen
        several = None if settings.peers else settings.num_images
        self._timed = hash_of(list_images(str(settings.images))[:several])
        dataset = load_coco(settings.annotations, settings.images)
        images = [image.path for image in dataset.images if image.path.is_file()]
        self.annotated = {
            "annotations": sha256(settings.annotations), "images": len(images),
            "images_sha256": hash_of(images),
        }  # fmt: skip
        self._calibration = ""
        if "int8" in settings.precisions:
            source, num = str(settings.calibration_images), settings.calibration_num
            self._calibration = hash_of(choose_images(source, num, 0))

    @property
    def taken_over(self) -> int:
        """Steps that had been made before."""
        return self._steps.taken_over

    def points(self, checkpoint: Path, size: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """A checkpoint at a scale, in each precision, and the benchmark that timed it."""
        fp32 = self._export(checkpoint, size)
        paths = [self._int8(fp32) if p == "int8" else fp32 for p in self._settings.precisions]
        figures = [self._accuracy(path, how) for path in paths for how in self._settings.compute]
        timing = self._timing(checkpoint, paths)
        points = [
            {
                "checkpoint": checkpoint.stem,
                "imgsz": size,
                "precision": timed["precision"],
                "input": timed["input"],
                "ap": found["AP"] or 0.0,
                "ap50": found["AP50"] or 0.0,
                "ms": timed["ms"]["total"],
                "stages": {stage: timed["ms"][stage]["p50"] for stage in STAGES[1:]},
                "images_per_second": timed["images_per_second"],
                "gmac": timed["gmac"],
                "share_of_peak": timed["share_of_peak"],
                "noise": timing["noise"],
                "commit": timing["machine"].get("commit"),
                "sha256": timed["sha256"],
            }
            for found, timed in zip(figures, timing["models"], strict=True)
        ]
        return points, timing

    def _export(self, checkpoint: Path, size: int) -> Path:
        path = self._models / f"{checkpoint.stem}-{size}.onnx"
        inputs = {"checkpoint": sha256(checkpoint), "imgsz": size}

        def make() -> None:
            export_checkpoint(checkpoint, path, ExportSettings(imgsz=size, tensorrt=False))

        return self._steps.file("export", path, inputs, make)

    def _int8(self, fp32: Path) -> Path:
        path = fp32.with_suffix(".int8.onnx")
        inputs = {"fp32": sha256(fp32), "images": self._calibration}
        settings = CalibrationSettings(
            images=self._settings.calibration_images, num=self._settings.calibration_num
        )

        def make() -> None:
            calibrate(fp32, path, settings)

        return self._steps.file("calibrate", path, inputs, make)

    def _accuracy(self, path: Path, compute: Compute) -> dict[str, Any]:
        def make() -> Any:
            threads = self._settings.threads
            with Detector(path, compute=compute, threads=threads) as detector:
                found = evaluate(detector, self._settings.annotations, self._settings.images)
            return found.figures

        inputs = {"model": sha256(path), "compute": compute, **self.annotated}
        return dict(self._steps.once("evaluate", path, inputs, make))

    def _timing(self, checkpoint: Path, paths: list[Path]) -> dict[str, Any]:
        s = self._settings
        settings = s.timing(checkpoint if s.peers else None)
        peers = find_peers(paths[0], read_info(paths[0]), settings.wanted_peers)
        inputs = {
            "models": [sha256(path) for path in paths], "images": self._timed,
            "compute": list(s.compute), "num": s.num_images,
            "peers": [[p.name, p.why if isinstance(p, LeftOut) else p.what] for p in peers],
            "repeats": s.repeats, "threads": s.threads, "cpu": machine.describe()["cpu"],
            "timing": code_of_timing(),
        }  # fmt: skip
        made = self._steps.once("time", paths[0], inputs, lambda: benchmark(paths, settings))
        return dict(made)
