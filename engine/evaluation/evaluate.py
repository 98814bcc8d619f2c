"""Measure a model file's accuracy on COCO annotations: twelve figures, and AP by class."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from retinart.engine.common.progress import Progress
from retinart.engine.common.table import Table
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.evaluation.coco import CocoDataset, coco_result, load_coco
from retinart.engine.media.images import Image, read_image

# The twelve figures in the order of pycocotools' `stats`
FIGURES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model reaches on a dataset.

    Attributes:
        figures: the twelve figures by name, 0 to 1; None if no object of that size is annotated.
        per_class: AP of each annotated class; None if the class has no objects.
        images: number of evaluated images.
        problems: what is wrong with the data, one line each.
        skipped: images that could not be read, with the reason.
        found: the detections by image id, in pixels of the annotated size.
        clock: the time of each stage.
    """

    figures: dict[str, float | None]
    per_class: dict[str, float | None]
    images: int
    problems: tuple[str, ...]
    skipped: tuple[tuple[Path, str], ...]
    found: dict[int, Detections]
    clock: StageClock = field(default_factory=StageClock)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types. AP is 0 to 1, times are in milliseconds."""
        return {
            "figures": self.figures,
            "per_class": self.per_class,
            "images": self.images,
            "problems": list(self.problems),
            "skipped": [[str(path), why] for path, why in self.skipped],
            "ms_per_image": {stage: round(ms, 3) for stage, ms in self.clock.medians().items()},
        }


class ImageDetector(Protocol):
    """A `Detector`, or another callable with the same signature."""

    @property
    def classes(self) -> Sequence[str]:
        """A name for each class."""

    def __call__(self, image: Image, /, *, clock: StageClock) -> Detections:
        """Detections in pixels of an image (H, W, 3) uint8 BGR."""


def evaluate(
    detector: ImageDetector, annotations: Path, images: Path, *, quiet: bool = False
) -> Evaluation:
    """Detect on every image of a dataset and compare with its annotations.

    Args:
        detector: the model. Its classes and the annotations' categories are matched by name.
        annotations: a COCO instances file.
        images: the folder of its images.
        quiet: show no progress.

    Raises:
        BadInput: the data cannot be used, or shares no class name with the model.
        MissingDependency: pycocotools is not installed.
    """
    dataset, category, problems = _prepare(detector.classes, annotations, images)
    clock, progress = StageClock(), Progress()
    results: list[dict[str, Any]] = []
    skipped, resized = [], []
    by_image: dict[int, Detections] = {}
    for count, item in enumerate(dataset.images, 1):
        try:
            with clock("decode"):
                image = read_image(item.path)
        except BadInput as error:
            skipped.append((item.path, error.why or error.what))
            continue
        found = detector(image, clock=clock)
        if image.shape[:2] != (item.height, item.width):
            resized.append(f"{item.path.name} ({image.shape[1]}x{image.shape[0]})")
            ratio = np.array([item.width / image.shape[1], item.height / image.shape[0]] * 2)
            found = replace(found, xyxy=(found.xyxy * ratio).astype(np.float32))
        by_image[item.image_id] = found
        results += _results(item.image_id, found, category)
        if not quiet:
            progress.update(count, len(dataset.images), "images")
    if not by_image:
        raise BadInput(
            f"no image in {images} can be read",
            why=skipped[0][1],
            fix="Give the folder of the annotated images, or copy them again",
        )
    if resized:
        problems.append(
            f"{len(resized)} images differ in size from their annotations (their detections are "
            f"scaled to the annotated size): {_some(resized)}"
        )
    stats, per_class = coco_figures(dataset, results, list(by_image))
    return Evaluation(
        figures=stats,
        per_class=per_class,
        images=len(by_image),
        problems=tuple(problems),
        skipped=tuple(skipped),
        found=by_image,
        clock=clock,
    )


def check_evaluation(classes: Sequence[str], annotations: Path, images: Path) -> list[str]:
    """Check the data as `evaluate` does, without detecting anything.

    Args:
        classes: of the model.
        annotations, images: see `evaluate`.

    Returns:
        A line that counts images, boxes and classes, then a line for each kind of problem.

    Raises:
        BadInput, MissingDependency: see `evaluate`.
    """
    return _prepare(classes, annotations, images)[2]


def _prepare(
    classes: Sequence[str], annotations: Path, images: Path
) -> tuple[CocoDataset, dict[int, int], list[str]]:
    """The dataset, the category id of each class index, and lines about the data."""
    _pycocotools()  # fail before the work: without it there are no figures
    dataset = load_coco(annotations, images)
    problems = list(dataset.summary())
    dataset = _with_one_category_a_name(dataset, problems)
    return dataset, _categories(classes, dataset, problems), problems


def coco_figures(
    dataset: CocoDataset, results: list[dict[str, Any]], image_ids: Sequence[int]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """The twelve figures and AP by class, for COCO results on these images of a dataset."""
    COCO, COCOeval = _pycocotools()
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints to stdout
        truth = COCO()
        truth.dataset = _truth(dataset)
        truth.createIndex()
        found = truth.loadRes(results) if results else COCO()
        if not results:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        run = COCOeval(truth, found, "bbox")
        run.params.imgIds = list(image_ids)
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][:, :, :, 0, -1]  # IoU x recall x class
    per_class = {name: _mean(precision[:, :, k]) for k, name in enumerate(dataset.classes)}
    stats = {n: None if v < 0 else float(v) for n, v in zip(FIGURES, run.stats, strict=True)}
    return stats, per_class


def _pycocotools() -> tuple[Any, Any]:
    """The classes COCO and COCOeval of pycocotools."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingDependency.package("pycocotools", "eval", "COCO evaluation") from error
    return COCO, COCOeval


def points(value: float | None) -> str:
    """Format a share (0 to 1) as points (0 to 100), and None as a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def figures_table(evaluation: Evaluation) -> str:
    """The figures as text, in AP points (0 to 100)."""
    figures, classes = (
        Table(rows=[(name, points(value)) for name, value in values.items()]).text()
        for values in (evaluation.figures, evaluation.per_class)
    )
    return f"{figures}\n\nAP by class ({evaluation.images} images)\n{classes}"


def _categories(
    classes: Sequence[str], dataset: CocoDataset, problems: list[str]
) -> dict[int, int]:
    """The category id of each class index. Classes without a category are left out."""
    wanted = _positions(classes)
    for same in wanted.values():
        if len(same) > 1:
            problems.append(
                f"the model has {len(same)} classes named {classes[same[0]]}: they count as one"
            )
    category = {
        label: category_id
        for name, category_id in zip(dataset.classes, dataset.category_ids, strict=True)
        for label in wanted.get(class_key(name), ())
    }
    if not category:
        raise BadInput(
            "the model and the annotations share no class name",
            why=f"the model has {_some(classes)}; the annotations have {_some(dataset.classes)}",
            fix="Give the model its names with `retinart export --classes FILE`",
        )
    unknown = [n for n in dataset.classes if class_key(n) not in wanted]
    if unknown:
        problems.append(f"the model does not know {_some(unknown)}: they count as missed")
    return category


def _with_one_category_a_name(dataset: CocoDataset, problems: list[str]) -> CocoDataset:
    """Merge categories of the same name, because classes are matched by name."""
    positions = list(_positions(dataset.classes).values())
    if len(positions) == len(dataset.classes):
        return dataset
    label = np.zeros(len(dataset.classes), np.int64)
    for new, same in enumerate(positions):
        label[same] = new
        if len(same) > 1:
            ids = ", ".join(str(dataset.category_ids[i]) for i in same)
            problems.append(
                f"{len(same)} categories are called {dataset.classes[same[0]]} (ids {ids}): "
                "they count as one"
            )
    return replace(
        dataset,
        classes=tuple(dataset.classes[same[0]] for same in positions),
        category_ids=tuple(dataset.category_ids[same[0]] for same in positions),
        images=tuple(replace(image, labels=label[image.labels]) for image in dataset.images),
    )


def _positions(names: Sequence[str]) -> dict[str, list[int]]:
    """The positions of each name, in the order in which the names first occur."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        found.setdefault(class_key(name), []).append(position)
    return found


def class_key(name: str) -> str:
    """The form of a class name that is compared: without spaces around it, in lower case."""
    return name.strip().lower()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _results(image_id: int, found: Detections, category: dict[int, int]) -> list[dict[str, Any]]:
    return [
        coco_result(image_id, category[label], [float(v) for v in box], score)
        for box, score, label in found
        if label in category
    ]


def _truth(dataset: CocoDataset) -> dict[str, Any]:
    """The cleaned annotations as a COCO document."""
    annotations: list[dict[str, Any]] = []
    for image in dataset.images:
        for box, label, crowd, area in zip(
            image.boxes, image.labels, image.crowd, image.areas, strict=True
        ):
            x1, y1, x2, y2 = (float(v) for v in box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.image_id,
                    "category_id": dataset.category_ids[int(label)],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return {
        "info": {},
        "images": [
            {"id": i.image_id, "height": i.height, "width": i.width} for i in dataset.images
        ],
        "annotations": annotations,
        "categories": [
            {"id": c, "name": n} for c, n in zip(dataset.category_ids, dataset.classes, strict=True)
        ],
    }


def _mean(precision: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None
