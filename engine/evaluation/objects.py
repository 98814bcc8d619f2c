"""The entries of the list `annotations`, read into arrays.

K  objects that have an image, a class and a box
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.boxes import too_many
from retinart.engine.evaluation.coco_json import Entry, Key, id_key, is_crowd, number
from retinart.engine.evaluation.problems import Problems

_BOX = "a box of four numbers"
_LARGEST_AREA = 1e10  # pycocotools leaves out larger objects, which no image holds


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """The objects of a file.

    Attributes:
        names: (K) what to call the annotation of each.
        image: (K,) int64 index of its image.
        label: (K,) int64 index of its class.
        crowd: (K,) bool.
        xywh: (K, 4) float64, as in the file.
        area: (K,) float64 as in the file; NaN where it holds none.
    """

    names: Sequence[str]
    image: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    xywh: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]

    def __getitem__(self, mask: npt.NDArray[np.bool_]) -> Objects:
        """Some of the objects."""
        return Objects(
            names=[self.names[k] for k in np.flatnonzero(mask).tolist()],
            image=self.image[mask],
            label=self.label[mask],
            crowd=self.crowd[mask],
            xywh=self.xywh[mask],
            area=self.area[mask],
        )


def read_objects(
    entries: Sequence[Entry],
    path: Path,
    *,
    images: Mapping[Key, int],
    absent: Set[Key],
    classes: Mapping[Key, int],
    problems: Problems,
) -> Objects:
    """Read the objects of images that are there.

    Args:
        entries: the list `annotations`.
        path: of the file, for errors.
        images: index of each image that is there, by the key of its id.
        absent: keys of images that are listed and not there; their objects go without a word.
        classes: index of each class, by the key of its id.
        problems: is added to.

    Raises:
        BadInput: as `is_crowd`; or too many of the entries cannot be used.
    """
    names, image, label, crowd, boxes, areas = [], [], [], [], [], []
    ids, unusable = set[Key](), Problems()
    for noun, known in (("image", images.keys() | absent), ("category", classes.keys())):
        _check_shifted({id_key(e.get(f"{noun}_id")) for e in entries} - {None}, known, noun, path)
    for position, entry in enumerate(entries):
        name = f"annotation {entry.get('id', f'number {position}')}"
        _look_at_marks(entry, name, ids, problems)
        owner, kind = id_key(entry.get("image_id")), id_key(entry.get("category_id"))
        if owner in absent:
            continue
        box = _box(entry.get("bbox"))
        for value, what in ((owner, "an image id"), (kind, "a category id"), (box, _BOX)):
            if value is None:
                unusable.add(f"annotations without {what}", "dropped", name)
        if owner is None or kind is None or box is None:
            continue
        if owner not in images:
            problems.add("unknown image ids", "boxes dropped", f"{entry.get('image_id')} of {name}")
            continue
        if kind not in classes:
            given = entry.get("category_id")
            problems.add("unknown categories", "boxes dropped", f"{given} of {name}")
            continue
        names.append(name)
        image.append(images[owner])
        label.append(classes[kind])
        crowd.append(is_crowd(entry, name, path))
        boxes.append(box)
        areas.append(_area(entry.get("area"), box, name, problems))
    _check_unusable(unusable, len(names), path, problems)
    return Objects(
        names=names,
        image=np.array(image, np.int64),
        label=np.array(label, np.int64),
        crowd=np.array(crowd, np.bool_),
        xywh=np.array(boxes, np.float64).reshape(-1, 4),
        area=np.array(areas, np.float64),
    )


def _check_shifted(used: Set[Key | None], known: Set[Key], noun: str, path: Path) -> None:
    """See that boxes do not count images or categories from another number than the lists do.

    Raises:
        BadInput: all ids fit once 1 is added or taken away, and not as they are.
    """
    numbers = {key for key in used if isinstance(key, int)}
    if len(numbers) < max(2, len(used)) or numbers <= known:
        return
    for step in (1, -1):
        if {key + step for key in numbers} <= known:
            raise BadInput(
                f"{path} counts {noun} ids in two ways",
                why=f"the boxes have {min(numbers)} to {max(numbers)}, and the list has "
                f"{min(numbers) + step} to {max(numbers) + step}",
                fix=f"Give the boxes the {noun} ids of the list",
            )


def _check_unusable(unusable: Problems, used: int, path: Path, problems: Problems) -> None:
    """Add what cannot be used to the problems.

    Raises:
        BadInput: it is so much that the rest says nothing about the images.
    """
    records = unusable.records()
    count = sum(problem.count for problem in records)
    if too_many(count, count + used):
        raise BadInput(
            f"{count} of {count + used} annotations of {path} cannot be used",
            why="; ".join(map(str, records)),
            fix="Write them again, or leave out the images that they are of",
        )
    problems.extend(records)


def _look_at_marks(entry: Entry, name: str, ids: set[Key], problems: Problems) -> None:
    """Count what has no effect, as in pycocotools: repeated ids, and marks to ignore."""
    key = id_key(entry.get("id"))
    if key is not None and key in ids:
        problems.add("annotation ids that repeat", "kept: these ids count for nothing", name)
    elif key is not None:
        ids.add(key)
    if number(entry.get("ignore")) or entry.get("ignore") is True:
        problems.add("annotations marked as ignored", "the mark counts for nothing", name)


def _box(value: object) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = tuple(found for found in map(number, value) if found is not None)
    return numbers if len(numbers) == 4 else None


def _area(value: object, box: Sequence[float], name: str, problems: Problems) -> float:
    """The area of an object; NaN where the box's counts."""
    area = number(value)
    if area is None or not 0 <= area <= _LARGEST_AREA:
        if value is not None:
            problems.add("unusable areas", "the box's area counts", name)
        return math.nan
    if area == 0 and box[2] and box[3]:
        problems.add("areas of 0 of boxes that have one", "kept: the objects count as small", name)
    return area
