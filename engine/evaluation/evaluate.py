"""Measure a model file's accuracy on COCO annotations: twelve figures, and AP by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from retinart.engine.common.progress import Progress
from retinart.engine.common.table import Table
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.class_names import Matched, match_classes, some
from retinart.engine.evaluation.coco import CocoDataset, load_coco
from retinart.engine.evaluation.coco_figures import coco_figures, load_pycocotools
from retinart.engine.evaluation.coco_json import Id
from retinart.engine.evaluation.picture_result import PictureResult
from retinart.engine.evaluation.problems import Problems
from retinart.engine.evaluation.resample import Matches
from retinart.engine.evaluation.results import coco_results
from retinart.engine.media.images import Image, read_image, why_skipped
from retinart.engine.reached_limits import ReachedLimits


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model reaches on a dataset.

    Attributes:
        figures: the twelve figures by name, 0 to 1; AP is always there, and a figure of a size is
            None if no object of that size is annotated.
        per_class: AP of each annotated class; None if the class has no objects.
        matches: which detections match objects, for intervals of a comparison.
        dataset: the annotations, with one category for each class.
        images: number of evaluated images.
        listed: number of images that the annotations list.
        problems: what is wrong with the data, one line each.
        skipped: images that could not be read, with the reason.
        found: the detections by image id, in pixels of the annotated size.
        category: the annotations' category id of each class index.
        clock: the time of each stage.
    """

    figures: dict[str, float | None]
    per_class: dict[str, float | None]
    matches: Matches = field(repr=False)
    dataset: CocoDataset = field(repr=False)
    images: int
    listed: int
    problems: tuple[str, ...]
    skipped: tuple[tuple[Path, str], ...]
    found: dict[Id, Detections]
    category: dict[int, Id]
    clock: StageClock = field(default_factory=StageClock)

    @property
    def ap(self) -> float:
        """AP, 0 to 1."""
        return existing(self.figures, "AP")

    @property
    def limits(self) -> ReachedLimits:
        """How many images reached each limit."""
        reached = ReachedLimits()
        for found in self.found.values():
            reached.add(found.limits)
        return reached

    def results(self) -> list[dict[str, Any]]:
        """A COCO results list with the annotations' ids: pycocotools gives the same figures."""
        return [
            result
            for image_id, found in self.found.items()
            for result in coco_results(image_id, found, self.category)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types. AP is 0 to 1, times are in milliseconds."""
        return {
            "figures": self.figures,
            "per_class": self.per_class,
            "images": self.images,
            "problems": list(self.problems),
            "skipped": [[str(path), why] for path, why in self.skipped],
            "limits": self.limits.to_json(),
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
        BadInput: the data cannot be used, hold nothing to measure, or share no class name with the
            model.
        MissingDependency: pycocotools is not installed.
    """
    clock = StageClock()
    detect = partial(_one_by_one, detector, clock)
    return evaluate_results(detector.classes, annotations, images, detect, clock, quiet=quiet)


def _one_by_one(
    detector: ImageDetector, clock: StageClock, paths: Sequence[Path]
) -> Iterator[PictureResult]:
    for path in paths:
        changes = list[tuple[str, str]]()
        try:
            with clock("decode"):
                image = read_image(path, note=lambda *change: changes.append(change[:2]))  # noqa: B023
        except BadInput as error:
            yield PictureResult.unread(why_skipped(error))
            continue
        found, (height, width) = detector(image, clock=clock), image.shape[:2]
        yield PictureResult(height=height, width=width, detections=found, changes=tuple(changes))


def evaluate_results(
    classes: Sequence[str],
    annotations: Path,
    images: Path,
    detect: Callable[[Sequence[Path]], Iterable[PictureResult]],
    clock: StageClock | None = None,
    *,
    quiet: bool = False,
) -> Evaluation:
    """As `evaluate`, of pictures that are detected on elsewhere.

    Args:
        classes: of the model.
        annotations, images, quiet: see `evaluate`.
        detect: gives a result for each picture, in order.
        clock: what the evaluation says of times; None says nothing.

    Raises:
        BadInput, MissingDependency: see `evaluate`.
    """
    matched, problems = _prepare(classes, annotations, images)
    dataset = matched.dataset
    progress, skipped, changed = Progress(), list[tuple[Path, str]](), Problems()
    by_image: dict[Id, Detections] = {}
    results = detect([item.path for item in dataset.images])
    for count, (item, result) in enumerate(zip(dataset.images, results, strict=True), 1):
        if result.why:
            skipped.append((item.path, result.why))
            continue
        for kind, effect in result.changes:
            changed.add(kind, effect, item.path.name)
        found = result.detections
        if (result.height, result.width) != (item.height, item.width):
            ratio = np.array([item.width / result.width, item.height / result.height] * 2)
            found = replace(found, xyxy=(found.xyxy * ratio).astype(np.float32))
        by_image[item.image_id] = found
        if not quiet:
            progress.update(count, len(dataset.images), "images")
    if not by_image:
        raise BadInput(
            f"no image in {images} can be read",
            why=skipped[0][1],
            fix="Give the folder of the annotated images, or copy them again",
        )
    problems += map(str, changed.records())
    problems += _of_other_classes(classes, by_image, matched.category)
    coco_list = (
        result
        for image_id, found in by_image.items()
        for result in coco_results(image_id, found, matched.category)
    )
    coco = coco_figures(dataset, coco_list, list(by_image))
    if coco.figures["AP"] is None:
        raise BadInput(
            f"there is nothing to measure AP on in {annotations}",
            why=f"no object is in the {len(by_image)} images that could be read",
            fix="Copy the other images again",
        )
    return Evaluation(
        figures=coco.figures,
        per_class=coco.per_class,
        matches=coco.matches,
        dataset=dataset,
        images=len(by_image),
        listed=dataset.listed,
        problems=tuple(problems),
        skipped=tuple(skipped),
        found=by_image,
        category=matched.category,
        clock=clock or StageClock(),
    )


def check_evaluation(
    classes: Sequence[str], annotations: Path, images: Path
) -> tuple[CocoDataset, list[str]]:
    """Check the data as `evaluate` does, without detecting anything.

    Args:
        classes: of the model.
        annotations, images: see `evaluate`.

    Returns:
        The annotations, and lines about them: one that counts images, boxes and classes, then one
        for each kind of problem.

    Raises:
        BadInput, MissingDependency: see `evaluate`.
    """
    matched, lines = _prepare(classes, annotations, images)
    return matched.dataset, lines


def check_objects(dataset: CocoDataset) -> None:
    """See that there is an object to measure AP on.

    Raises:
        BadInput: there is none, so AP does not exist.
    """
    if all(image.crowd.all() for image in dataset.images):
        crowds = sum(int(image.truth.crowd.sum()) for image in dataset.images)
        why = f"all {crowds} objects are crowds" if crowds else "no image has an object"
        raise BadInput(
            f"there is nothing to measure AP on in {dataset.annotations}",
            why="; ".join([why, *map(str, dataset.problems)]),
            fix="Check that it is the right file, and that it lists objects",
        )


def check_reference(name: str, ap: float) -> None:
    """See that a model finds something, before a limit is set on what another one may lose.

    Raises:
        BadInput: its AP is 0, so AP cannot fall below 0, so every other model would pass.
    """
    if not ap > 0:
        raise BadInput(
            f"{name} has AP 0",
            why="AP cannot fall below 0, so every other model would pass",
            fix="Check that the annotations are of these images, and the classes of this model",
        )


def existing(figures: Mapping[str, float | None], name: str) -> float:
    """A figure that exists.

    Raises:
        BadInput: it does not, as nothing was measured; it must not pass as 0.
    """
    value = figures[name]
    if value is None:
        raise BadInput(
            f"{name} does not exist",
            why="no object was annotated in the images that it was measured on",
            fix="Measure it again, on images with objects",
        )
    return value


def _prepare(classes: Sequence[str], annotations: Path, images: Path) -> tuple[Matched, list[str]]:
    """The dataset for a model's classes, and lines about the data."""
    load_pycocotools()  # fail before the work: without it there are no figures
    dataset = load_coco(annotations, images)
    check_objects(dataset)
    matched = match_classes(classes, dataset)
    return matched, [*dataset.summary(), *matched.lines]


def _of_other_classes(
    classes: Sequence[str], found: Mapping[Id, Detections], category: Mapping[int, Id]
) -> list[str]:
    """A line about detections that count for nothing, because no category has their class."""
    labels = np.concatenate([detections.class_id for detections in found.values()])
    others, counts = np.unique(labels[~np.isin(labels, list(category))], return_counts=True)
    if not len(others):
        return []
    return [
        f"the annotations do not have {some([classes[i] for i in others])}: "
        f"{counts.sum()} detections of them count for nothing"
    ]


ABOVE_SIZES = (
    "AP can lie above AP of every size: a size counts only the classes that have objects of it,\n"
    "and good detections of one size can outweigh the errors of another."
)


def points(value: float | None) -> str:
    """Format a share (0 to 1) as points (0 to 100), and None as a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def figures_table(evaluation: Evaluation) -> str:
    """The figures as text, in AP points (0 to 100)."""
    figures, classes = (
        Table(rows=[(name, points(value)) for name, value in values.items()]).text()
        for values in (evaluation.figures, evaluation.per_class)
    )
    if _above_every_size(evaluation.figures):
        figures += f"\n{ABOVE_SIZES}"
    return f"{figures}\n\nAP by class ({counted(evaluation)})\n{classes}"


def _above_every_size(figures: Mapping[str, float | None]) -> bool:
    sizes = [figures[f"AP_{size}"] for size in ("small", "medium", "large")]
    return all(ap is None or ap < existing(figures, "AP") for ap in sizes)


def counted(evaluation: Evaluation) -> str:
    """How many images AP is of, and how many are listed where these are more."""
    if evaluation.images == evaluation.listed:
        return f"{evaluation.images} images"
    return f"{evaluation.images} of the {evaluation.listed} listed images"
