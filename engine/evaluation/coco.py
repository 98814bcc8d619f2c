"""Read, check and clean COCO instance annotations, without pycocotools.

docs/annotations.md lists the rules. M is the number of objects in an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.annotation_files import read_annotations
from retinart.engine.evaluation.boxes import CleanBoxes, clean_boxes
from retinart.engine.evaluation.coco_json import Entry, Id, Key, by_id, side
from retinart.engine.evaluation.frames import Picture, frame_sizes
from retinart.engine.evaluation.objects import Objects, read_objects
from retinart.engine.evaluation.picture_files import PictureFiles, agreement, picture_name
from retinart.engine.evaluation.problems import Problem, Problems

MOST_CLASSES = 100_000  # of a model


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The objects of an image as an evaluation counts them, all N of them.

    Attributes:
        xywh: (N, 4) float64 left, top, width and height in pixels, as in the file. They may lie
            outside of the image, or have no area.
        labels: (N,) int64, indices into `CocoDataset.classes`.
        crowd: (N,) bool, regions with many objects. Detections in them count neither as hit nor as
            miss.
        areas: (N,) float64, in pixels: the file's value (in COCO the area of a segment), otherwise
            the area of the box. They decide what is small, medium and large.
    """

    xywh: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoImage:
    """One image and its objects.

    Attributes:
        image_id: as in the file.
        path: the image file; it exists.
        height, width: in pixels, what the boxes are in: as the annotations say, or as the file is.
        boxes: (M, 4) float32 xyxy in pixels, inside of the image.
        labels: (M,) int64, indices into `CocoDataset.classes`.
        crowd: (M,) bool, see `Truth`.
        areas: (M,) float32, see `Truth`.
        truth: what an evaluation counts; it also holds objects of which nothing is in the image.
    """

    image_id: Id
    path: Path
    height: int
    width: int
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float32]
    truth: Truth


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoDataset:
    """Annotations and their image folder, cleaned.

    Attributes:
        annotations: their file or folder.
        classes: names, in the order of the category ids.
        category_ids: the file's id of each class.
        images: in the file's order.
        listed: images that the file lists.
        problems: what is wrong, one record a kind. `str` of a record is one line.
    """

    annotations: Path
    classes: tuple[str, ...]
    category_ids: tuple[Id, ...]
    images: tuple[CocoImage, ...]
    listed: int
    problems: tuple[Problem, ...]

    @property
    def num_boxes(self) -> int:
        """The number of objects in all images, crowds included."""
        return sum(len(image.truth.labels) for image in self.images)

    def summary(self) -> list[str]:
        """A line that counts images, boxes and classes, then a line for each kind of problem."""
        empty = sum(not len(image.truth.labels) for image in self.images)
        return [
            f"{self.annotations.name}: {len(self.images)} images ({empty} without objects), "
            f"{self.num_boxes} boxes, {len(self.classes)} classes",
            *(str(problem) for problem in self.problems),
        ]


def load_coco(
    annotations: Path, images: Path | Sequence[Path], *, need_objects: bool = True
) -> CocoDataset:
    """Read annotations and check them against their images.

    Args:
        annotations: a COCO instances file, or what else `read_annotations` reads.
        images: the folder that the file names are relative to, or the image files.
        need_objects: refuse a COCO file without the list `annotations`, such as COCO's test set.

    Returns:
        The dataset without the entries that cannot be used. `problems` lists them.

    Raises:
        BadInput: the annotations cannot be read, hold boxes that are not pixels of their images or
            ids that stand for two things, or none of their images can be used.
    """
    problems = Problems()
    document = read_annotations(annotations, images, problems, need_objects=need_objects)
    categories = by_id(document.categories, "category", "name", annotations, problems)
    listed = by_id(document.images, "image", "file_name", annotations, problems)
    if len(categories) > MOST_CLASSES:
        raise BadInput(
            f"{annotations} has {len(categories):,} categories",
            why=f"a model has {MOST_CLASSES:,} classes at most",
            fix="Check that it is the right file",
        )
    if not categories or not listed:
        raise BadInput(
            f"{annotations} lists no {'images' if categories else 'categories'}",
            fix="Check that it is the right file",
        )
    keys = sorted(categories, key=lambda key: (isinstance(key, str), key))
    paths = _find(annotations, listed, images, problems)
    objects = read_objects(
        document.annotations,
        annotations,
        images={key: i for i, key in enumerate(paths)},
        absent=listed.keys() - paths.keys(),
        classes={key: i for i, key in enumerate(keys)},
        problems=problems,
    )
    pictures = [Picture.read(path, _size(listed[key])) for key, path in paths.items()]
    sizes = frame_sizes(pictures, objects.xywh, objects.image, problems)
    if not any(sizes):
        where = images if isinstance(images, Path) else f"the {len(images)} images"
        raise BadInput(
            f"none of the {len(listed)} images of {annotations} can be used",
            why=f"in {where} there are " + "; ".join(str(p) for p in problems.records()),
            fix="Give the folder that the annotations' file names are relative to"
            if any(e.get("file_name") for key, e in listed.items() if key not in paths)
            else "Copy the images again, turn them as annotated, or correct the annotations",
        )
    objects = objects[np.array([size is not None for size in sizes], np.bool_)[objects.image]]
    frames = np.array([sizes[i] for i in objects.image], np.float64).reshape(-1, 2)
    boxes = clean_boxes(objects.xywh, frames, objects.names, problems, annotations)
    _count_twins(objects, boxes, problems)
    return CocoDataset(
        annotations=annotations,
        classes=tuple(str(categories[key].get("name") or key) for key in keys),
        category_ids=tuple(categories[key]["id"] for key in keys),
        images=_images(listed, paths, sizes, objects, boxes),
        listed=len(listed),
        problems=problems.records(),
    )


def _find(
    annotations: Path,
    listed: Mapping[Key, Entry],
    images: Path | Sequence[Path],
    problems: Problems,
) -> dict[Key, Path]:
    """The file of each image that is there, in the file's order."""
    files, found = PictureFiles(images), dict[Key, Path]()
    names = {key: picture_name(entry) for key, entry in listed.items()}
    near, by_file = set[Key](), dict[Path, list[Key]]()
    for key, name in names.items():
        path, exact = files.find(name) if name else (None, True)
        if path is not None:
            found[key] = path
            by_file.setdefault(path, []).append(key)
            if not exact:
                near.add(key)
    for path, keys in by_file.items():
        exact_keys = [key for key in keys if key not in near] or keys
        for key in set(keys) - set(exact_keys):
            del found[key]
        for key in _others(annotations, path, {key: names[key] for key in exact_keys}, problems):
            del found[key]
    for key, name in names.items():
        if not name:
            problems.add("images without a file name", "dropped", f"id {key}")
        elif key not in found:
            if isinstance(images, Path):  # of given files, the list may well have more
                problems.add("missing image files", "images dropped", name)
        elif key in near:
            effect = "found by the end of the name"
            problems.add("file names of another folder or spelling", effect, name)
    return found


def _others(
    annotations: Path, path: Path, names: Mapping[Key, str], problems: Problems
) -> Sequence[Key]:
    """Of the ids that one file was found for, those that mean another file.

    Raises:
        BadInput: nothing says which of several names is the file's.
    """
    if len(set(names.values())) == 1:
        if len(names) > 1:
            effect = "each id counts as an image of its own"
            problems.add("image files with several ids", effect, path.name)
        return ()
    agree = {key: agreement(path, name) for key, name in names.items()}
    best = [key for key, count in agree.items() if count == max(agree.values())]
    if len({names[key] for key in best}) > 1:
        first, second = (names[key] for key in best[:2])
        raise BadInput(
            f"two images of {annotations} would be read from one file",
            why=f"{first} and {second} are not there, and both end as {path} does",
            fix="Give the folder that the annotations' file names are relative to",
        )
    return [key for key in names if key not in best]


def _size(entry: Entry) -> tuple[int, int] | None:
    """The annotated height and width, where both are there."""
    height, width = side(entry.get("height")), side(entry.get("width"))
    return None if height is None or width is None else (height, width)


def _images(
    listed: Mapping[Key, Entry],
    paths: Mapping[Key, Path],
    sizes: Sequence[tuple[int, int] | None],
    objects: Objects,
    boxes: CleanBoxes,
) -> tuple[CocoImage, ...]:
    """The images that can be used, with their objects."""
    area = np.where(np.isnan(objects.area), boxes.xywh[:, 2:].prod(axis=1), objects.area)
    order = np.argsort(objects.image, kind="stable")
    parts = np.split(order, np.searchsorted(objects.image[order], np.arange(1, len(sizes))))
    images = []
    for (key, path), size, mine in zip(paths.items(), sizes, parts, strict=True):
        if size is None:
            continue
        counted, learned = mine[boxes.kept[mine]], mine[boxes.learned[mine]]
        images.append(
            CocoImage(
                image_id=listed[key]["id"],
                path=path,
                height=size[0],
                width=size[1],
                boxes=boxes.inside[learned].astype(np.float32),
                labels=objects.label[learned],
                crowd=objects.crowd[learned],
                areas=area[learned].astype(np.float32),
                truth=Truth(
                    xywh=boxes.xywh[counted],
                    labels=objects.label[counted],
                    crowd=objects.crowd[counted],
                    areas=area[counted],
                ),
            )
        )
    return tuple(images)


def _count_twins(objects: Objects, boxes: CleanBoxes, problems: Problems) -> None:
    """Count objects that are listed twice: of one class, with equal boxes."""
    seen = set[tuple[float, ...]]()
    for k in np.flatnonzero(boxes.kept & ~objects.crowd).tolist():
        row = (float(objects.image[k]), float(objects.label[k]), *boxes.xywh[k].tolist())
        if row in seen:
            effect = "learned once; in eval each counts"
            problems.add("objects that are listed twice", effect, objects.names[k])
        seen.add(row)
