"""Find the errors of a dataset before a training rather than in the middle of it.

`load_coco` checks the annotations against each other, the folder and the images' headers. This
module decodes every image, and compares the boxes of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from retinart.engine.common.progress import Progress
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco import CocoDataset, CocoImage, load_coco
from retinart.engine.evaluation.matching import box_iou
from retinart.engine.evaluation.problems import Problems
from retinart.engine.media.images import read_image, why_skipped

MOST_COMPARED = 2000  # boxes of an image; their pairs are as many as its square
NEARLY = 0.9  # IoU from which on two boxes of a class are probably the same object


def load_checked(
    annotations: Path, images: Path, *, workers: int = 2, open_images: bool = True
) -> CocoDataset:
    """A dataset to train on: `load_coco`, with its images opened and its boxes compared.

    Args:
        annotations, images: see `load_coco`.
        workers: threads that open images.
        open_images: decode every image, which takes as long as loading an epoch.

    Returns:
        The dataset without images that cannot be read. It lists every problem in `problems`.

    Raises:
        BadInput: see `load_coco`; or no image can be read, or no object is left.
    """
    dataset = load_coco(annotations, images)
    found = Problems(dataset.problems)
    _compare_boxes(dataset, found)
    if open_images:
        dataset = replace(dataset, images=tuple(_readable(dataset.images, workers, found)))
    if dataset.images:
        _count_classes(dataset, found)
    dataset = replace(dataset, problems=found.records())
    if not dataset.images:
        raise BadInput(
            f"none of the images of {annotations} can be used",
            why="; ".join(str(p) for p in dataset.problems),
            fix="Copy them again, or turn them as their annotations say",
        )
    if all(image.crowd.all() for image in dataset.images):
        raise BadInput(
            f"{annotations} holds no object to learn",
            why="; ".join(str(p) for p in dataset.problems) or "all of its boxes are crowds",
            fix="Check that it is the right file, and its boxes, which are x, y, width and height",
        )
    return dataset


def _compare_boxes(dataset: CocoDataset, found: Problems) -> None:
    for image in dataset.images:
        if len(image.boxes) > MOST_COMPARED:
            kind = f"images with more than {MOST_COMPARED} boxes"
            found.add(kind, "kept, their boxes not compared", image.path.name)
            continue
        for kind, effect, first in _pairs(image):
            name = dataset.classes[int(image.labels[first])]
            found.add(kind, effect, f"{name} in {image.path.name}")


def _count_classes(dataset: CocoDataset, found: Problems) -> None:
    labels = [image.labels[~image.crowd] for image in dataset.images]
    counts = np.bincount(np.concatenate(labels), minlength=len(dataset.classes))
    for name, count in zip(dataset.classes, counts, strict=True):
        if not count:
            found.add("classes without objects", "kept, and cannot be learned", name)
    for name in sorted(n for n, count in Counter(dataset.classes).items() if count > 1):
        found.add("names of several categories", "kept as classes of their own", name)


def _pairs(image: CocoImage) -> Iterator[tuple[str, str, int]]:
    """Kind, effect and first object of each pair of boxes that nearly coincide."""
    single = np.flatnonzero(~image.crowd)
    boxes = image.boxes[single]
    if len(boxes) < 2:
        return
    overlap = np.triu(box_iou(boxes, boxes), 1)
    for i, j in zip(*np.nonzero(overlap >= NEARLY), strict=True):
        same_class = image.labels[single[i]] == image.labels[single[j]]
        if np.array_equal(boxes[i], boxes[j]):
            if not same_class:  # `load_coco` counts objects that are listed twice
                yield "boxes with two classes", "kept, the first is learned", int(single[i])
        elif same_class:
            kind = f"pairs of boxes that nearly coincide (IoU from {NEARLY} on)"
            yield kind, "both kept", int(single[i])


def _readable(images: Sequence[CocoImage], workers: int, found: Problems) -> Iterator[CocoImage]:
    """The images that can be decoded, in order. The others, and changes, are added to `found`."""
    progress = Progress()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        opened = pool.map(_opened, images)
        for done, (image, (why, changes)) in enumerate(zip(images, opened, strict=True), 1):
            progress.update(done, len(images), "images opened")
            if why:
                found.add("unreadable images", "dropped", f"{image.path.name} ({why})")
                continue
            for change in changes:
                found.add(*change)
            yield image


def _opened(image: CocoImage) -> tuple[str, list[tuple[str, str, str]]]:
    """Why an image cannot be decoded, or ""; and what is changed of it."""
    changes: list[tuple[str, str, str]] = []
    try:
        read_image(image.path, note=lambda *change: changes.append(change))
    except BadInput as error:
        return why_skipped(error), []
    return "", changes
