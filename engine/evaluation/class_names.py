"""A model's classes and a dataset's categories, matched by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco import CocoDataset
from retinart.engine.evaluation.coco_json import Id


@dataclass(frozen=True, kw_only=True, eq=False)
class Matched:
    """A dataset for a model.

    Attributes:
        dataset: with one category for each name.
        category: the category id of each class index; classes without a category are left out.
        lines: what could not be matched one to one, for people.
    """

    dataset: CocoDataset
    category: dict[int, Id]
    lines: list[str]


def match_classes(classes: Sequence[str], dataset: CocoDataset) -> Matched:
    """Match by name, without regard to case and to spaces around it.

    Raises:
        BadInput: no name is in both, or the objects are all of other classes.
    """
    lines: list[str] = []
    dataset = _with_one_category_a_name(dataset, lines)
    wanted = _positions(classes)
    for same in wanted.values():
        if len(same) > 1:
            lines.append(
                f"the model has {len(same)} classes named {classes[same[0]]}: they count as one"
            )
    category = {
        label: category_id
        for name, category_id in zip(dataset.classes, dataset.category_ids, strict=True)
        for label in wanted.get(class_key(name), ())
    }
    fix = "Give the model its names with `retinart export --classes FILE`"
    if not category:
        raise BadInput(
            "the model and the annotations share no class name",
            why=f"the model has {some(classes)}; the annotations have {some(dataset.classes)}",
            fix=fix,
        )
    counts = objects_by_class(dataset)
    known = [class_key(name) in wanted for name in dataset.classes]
    if counts.any() and not counts[known].any():
        annotated = [n for n, count in zip(dataset.classes, counts, strict=True) if count]
        raise BadInput(
            "the model knows none of the annotated objects' classes",
            why=f"the model has {some(classes)}; the objects are {some(annotated)}",
            fix=fix,
        )
    for used, effect in ((True, "they count as missed"), (False, "they count for nothing")):
        unknown = [
            name
            for name, know, count in zip(dataset.classes, known, counts, strict=True)
            if not know and bool(count) == used
        ]
        if unknown:
            objects = "" if used else ", which have no objects"
            lines.append(f"the model does not know {some(unknown)}{objects}: {effect}")
    return Matched(dataset=dataset, category=category, lines=lines)


def objects_by_class(dataset: CocoDataset) -> npt.NDArray[np.int64]:
    """The number of objects of each class that an evaluation counts, without crowds."""
    counts = np.zeros(len(dataset.classes), np.int64)
    for image in dataset.images:
        np.add.at(counts, image.truth.labels[~image.truth.crowd], 1)
    return counts


def class_key(name: str) -> str:
    """The form of a class name that is compared: without spaces around it, in lower case."""
    return name.strip().lower()


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _with_one_category_a_name(dataset: CocoDataset, lines: list[str]) -> CocoDataset:
    """Merge categories of the same name, because classes are matched by name.

    The merged category keeps the id that has the most objects, and results get that id.
    """
    positions = list(_positions(dataset.classes).values())
    if len(positions) == len(dataset.classes):
        return dataset
    counts = objects_by_class(dataset)
    label, kept = np.zeros(len(dataset.classes), np.int64), []
    for new, same in enumerate(positions):
        label[same] = new
        kept.append(max(same, key=lambda i: counts[i]))
        if len(same) > 1:
            ids = ", ".join(str(dataset.category_ids[i]) for i in same)
            lines.append(
                f"{len(same)} categories are called {dataset.classes[same[0]]} (ids {ids}): "
                "they count as one"
            )
    return replace(
        dataset,
        classes=tuple(dataset.classes[i] for i in kept),
        category_ids=tuple(dataset.category_ids[i] for i in kept),
        images=tuple(
            replace(
                image,
                labels=label[image.labels],
                truth=replace(image.truth, labels=label[image.truth.labels]),
            )
            for image in dataset.images
        ),
    )


def _positions(names: Sequence[str]) -> dict[str, list[int]]:
    """The positions of each name, in the order in which the names first occur."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        found.setdefault(class_key(name), []).append(position)
    return found
