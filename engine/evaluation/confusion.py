"""Which classes are taken for which, and for the background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retinart.engine.common.table import Table
from retinart.engine.detections import Detections
from retinart.engine.evaluation.coco import CocoDataset, Truth
from retinart.engine.evaluation.coco_json import Id

BACKGROUND = "background"
_IOU = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Confusion:
    """Counts of objects by their class and by the class that was detected.

    Attributes:
        classes: names.
        confidence: detections below it do not count.
        counts: (classes + 1, classes + 1) int64; a row for the annotated class, a column for the
            detected one. The last row holds detections without an object, and the last column
            objects that were missed.
    """

    classes: tuple[str, ...]
    confidence: float
    counts: npt.NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "classes": [*self.classes, BACKGROUND],
            "confidence": self.confidence,
            "iou": _IOU,
            "counts": self.counts.tolist(),
        }

    def table(self) -> Table:
        """A row for each annotated class, a column for each detected one."""
        names = (*self.classes, BACKGROUND)
        return Table(
            title="Confusion matrix",
            head=("annotated \\ detected", *names),
            rows=[(name, *row) for name, row in zip(names, self.counts.tolist(), strict=True)],
            notes=[f"Detections with a confidence of at least {self.confidence:.3f}, IoU {_IOU}."],
        )


def confusion(
    dataset: CocoDataset,
    found: Mapping[Id, Detections],
    category: Mapping[int, Id],
    confidence: float,
) -> Confusion:
    """Give each detection at most one object, the same class first, then the best overlap.

    That is supervision's rule. Crowds are not objects; detections of their class on them count
    nowhere, as in COCO.

    Args:
        dataset: whose images `found` has.
        found: detections by image id, in pixels of the annotated size.
        category: the dataset's category id of each class index; detections of others are left out.
        confidence: detections below it do not count.
    """
    size = len(dataset.classes)
    label = {category_id: k for k, category_id in enumerate(dataset.category_ids)}
    number = {k: label[c] for k, c in category.items()}
    counts = np.zeros((size + 1, size + 1), np.int64)
    for image in dataset.images:
        if image.image_id in found:
            all_of = found[image.image_id]
            sure = all_of[
                (all_of.confidence >= confidence) & np.isin(all_of.class_id, list(number))
            ]
            labels = np.array([number[k] for k in sure.class_id.tolist()], np.int64)
            _count(counts, image.truth, sure.xyxy.astype(np.float64), labels)
    return Confusion(classes=dataset.classes, confidence=confidence, counts=counts)


def confusion_lines(matrix: Confusion, most: int = 10) -> list[str]:
    """The largest confusions between two classes."""
    between = matrix.counts[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:most]
    pairs: Sequence[tuple[int, int]] = [divmod(int(k), len(between)) for k in order]
    return [
        f"{between[a, b]} {matrix.classes[a]} detected as {matrix.classes[b]}"
        for a, b in pairs
        if between[a, b]
    ]


def _count(
    counts: npt.NDArray[np.int64],
    truth: Truth,
    boxes: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
) -> None:
    """Add the objects and detections of one image."""
    corners = np.concatenate([truth.xywh[:, :2], truth.xywh[:, :2] + truth.xywh[:, 2:]], axis=1)
    inter, areas, own = _intersections(corners, boxes)
    objects = ~truth.crowd
    union = areas[:, None] + own - inter
    iou = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    same = truth.labels[:, None] == labels
    rows, columns = np.nonzero((iou >= _IOU) & objects[:, None])
    order = np.lexsort((-iou[rows, columns], ~same[rows, columns]))
    seen, taken = set[int](), set[int]()
    for a, b in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if a not in seen and b not in taken:
            seen.add(a)
            taken.add(b)
            counts[truth.labels[a], labels[b]] += 1
    for a in set(np.flatnonzero(objects).tolist()) - seen:
        counts[truth.labels[a], -1] += 1
    on_crowd = ((inter >= _IOU * own) & same & ~objects[:, None]).any(axis=0)
    for b in set(np.flatnonzero(~on_crowd).tolist()) - taken:
        counts[-1, labels[b]] += 1


def _intersections(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(A, B) areas of intersections, and the areas (A,) and (B,) of the boxes."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b))
    return np.maximum(sides, 0).prod(axis=2), area_a, area_b
