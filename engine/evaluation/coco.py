"""Read, check and clean COCO instance annotations, without pycocotools.

M is the number of objects in an image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput

_EXAMPLES = 3
_SLACK = 1.0  # pixels: a box that leaves its image by no more is not reported


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoImage:
    """One image and its objects.

    Attributes:
        image_id: as in the file.
        path: the image file; it exists.
        height, width: in pixels, as the annotations say.
        boxes: (M, 4) float32 xyxy in pixels, inside of the image.
        labels: (M,) int64, indices into `CocoDataset.classes`.
        crowd: (M,) bool, regions with many objects. Detections in them count neither as hit nor as
            miss.
        areas: (M,) float32, in pixels: the file's value (in COCO the area of a segment), otherwise
            the area of the box. They decide what is small, medium and large.
    """

    image_id: int
    path: Path
    height: int
    width: int
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of error in a dataset.

    Attributes:
        kind: what is wrong, in the plural.
        count: how often.
        effect: what happens to these entries.
        examples: the first few of them.
    """

    kind: str
    count: int
    effect: str
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count} {self.kind} ({self.effect}): {', '.join(self.examples)}{more}"


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoDataset:
    """A COCO instances file and its image folder, cleaned.

    Attributes:
        annotations: the JSON file.
        classes: names, in the order of the category ids.
        category_ids: the file's id of each class.
        images: in the file's order.
        problems: what is wrong, one record a kind. `str` of a record is one line.
    """

    annotations: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: tuple[CocoImage, ...]
    problems: tuple[Problem, ...]

    @property
    def num_boxes(self) -> int:
        """The number of objects in all images, crowds included."""
        return sum(len(image.boxes) for image in self.images)

    def summary(self) -> list[str]:
        """A line that counts images, boxes and classes, then a line for each kind of problem."""
        empty = sum(not len(image.boxes) for image in self.images)
        return [
            f"{self.annotations.name}: {len(self.images)} images ({empty} without objects), "
            f"{self.num_boxes} boxes, {len(self.classes)} classes",
            *(str(problem) for problem in self.problems),
        ]


class Problems:
    """Counts problems by kind: first the `known` ones, then each kind when it first occurs."""

    def __init__(self, known: Iterable[Problem] = ()) -> None:
        self._found: dict[tuple[str, str], tuple[int, list[str]]] = {
            (p.kind, p.effect): (p.count, list(p.examples)) for p in known
        }

    def add(self, kind: str, effect: str, example: str) -> None:
        """Count one more problem of a kind."""
        count, examples = self._found.get((kind, effect), (0, []))
        if count < _EXAMPLES:
            examples.append(example)
        self._found[kind, effect] = (count + 1, examples)

    def records(self) -> tuple[Problem, ...]:
        """One record for each kind."""
        return tuple(
            Problem(kind=kind, effect=effect, count=count, examples=tuple(examples))
            for (kind, effect), (count, examples) in self._found.items()
        )


def load_coco(annotations: Path, images: Path) -> CocoDataset:
    """Read a COCO instances file and check it against its image folder.

    Args:
        annotations: the JSON file with `images`, `annotations` and `categories`.
        images: the folder that the file names are relative to.

    Returns:
        The dataset without the entries that cannot be used. `problems` lists them.

    Raises:
        BadInput: the file cannot be read, is not a COCO instances file, or the folder has none of
            its images.
    """
    document = _read(annotations)
    problems = Problems()
    categories = _by_id(document["categories"], "category", annotations, problems)
    ids = sorted(categories)
    index = {category_id: i for i, category_id in enumerate(ids)}
    known = _by_id(document["images"], "image", annotations, problems)
    if not ids or not known:
        raise BadInput(
            f"{annotations} lists no {'images' if ids else 'categories'}",
            fix="Check that it is the right file",
        )

    present = {}
    for image_id, entry in known.items():
        path = images / str(entry.get("file_name", ""))
        if not _positive(entry.get("height")) or not _positive(entry.get("width")):
            problems.add("images without height and width", "dropped", f"id {image_id}")
        elif not path.is_file():
            problems.add("missing image files", "images dropped", str(entry.get("file_name")))
        else:
            present[image_id] = path
    if not present:
        raise BadInput(
            f"none of the {len(known)} images of {annotations} can be used",
            why=f"in {images} there are " + "; ".join(str(p) for p in problems.records()),
            fix="Give the folder that the annotations' file names are relative to",
        )

    objects: dict[int, list[tuple[tuple[float, ...], int, bool, float]]] = {i: [] for i in present}
    seen: set[Any] = set()
    for position, entry in enumerate(document["annotations"]):
        name = f"annotation {entry.get('id', f'number {position}')}"
        if _is_repeated(entry.get("id"), seen):
            problems.add("duplicate annotation ids", "later ones dropped", name)
        elif _hashable(entry.get("image_id")) not in known:
            problems.add("unknown image ids", "boxes dropped", f"{entry.get('image_id')} of {name}")
        elif _hashable(entry.get("category_id")) not in index:
            problems.add(
                "unknown categories", "boxes dropped", f"{entry.get('category_id')} of {name}"
            )
        elif entry["image_id"] in present:
            box = _clean_box(entry.get("bbox"), known[entry["image_id"]], name, problems)
            if box is not None:
                crowd = bool(entry.get("iscrowd", 0))
                area = (box[2] - box[0]) * (box[3] - box[1])
                if _finite(entry.get("area")):
                    area = float(entry["area"])
                label = index[entry["category_id"]]
                objects[entry["image_id"]].append((box, label, crowd, area))

    return CocoDataset(
        annotations=annotations,
        classes=tuple(str(categories[i].get("name", i)) for i in ids),
        category_ids=tuple(ids),
        images=tuple(
            CocoImage(
                image_id=image_id,
                path=path,
                height=int(known[image_id]["height"]),
                width=int(known[image_id]["width"]),
                boxes=np.array([o[0] for o in objects[image_id]], np.float32).reshape(-1, 4),
                labels=np.array([o[1] for o in objects[image_id]], np.int64),
                crowd=np.array([o[2] for o in objects[image_id]], np.bool_),
                areas=np.array([o[3] for o in objects[image_id]], np.float32),
            )
            for image_id, path in present.items()
        ),
        problems=problems.records(),
    )


def coco_result(
    image_id: int, category_id: int, box: Sequence[float], score: float
) -> dict[str, Any]:
    """One entry of a COCO results list. The box comes as xyxy and leaves as x, y, width, height."""
    x1, y1, x2, y2 = box
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
        "score": round(score, 6),
    }


def _read(path: Path) -> Mapping[str, list[dict[str, Any]]]:
    """Read the JSON document and check that its three lists hold objects."""
    what = f"cannot read the annotations {path}"
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(what, why=error.strerror or str(error), fix="Check the path") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(
            what,
            why=f"it is not JSON or was cut off ({error})",
            fix="Write or copy the file again",
        ) from error
    fix = "Give a COCO instances file, with the lists images, annotations and categories"
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise BadInput(
                f"{path} is not a COCO instances file", why=f"it has no list {key!r}", fix=fix
            )
        if not all(isinstance(entry, dict) for entry in document[key]):
            raise BadInput(
                f"{path} is not a COCO instances file",
                why=f"an entry of {key!r} is not an object",
                fix=fix,
            )
    checked: dict[str, list[dict[str, Any]]] = document
    return checked


def _by_id(
    entries: Iterable[dict[str, Any]], noun: str, path: Path, problems: Problems
) -> dict[int, dict[str, Any]]:
    """Entries by integer id. Of entries with the same id the first one stays."""
    found: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        key = entry.get("id")
        if not isinstance(key, int):
            raise BadInput(
                f"{path} is not a COCO instances file",
                why=f"{noun} number {position} has no integer id",
                fix="Give every image and category an integer id",
            )
        if key in found:
            problems.add(f"duplicate {noun} ids", "later ones dropped", str(key))
        else:
            found[key] = entry
    return found


def _clean_box(
    bbox: Any, image: Mapping[str, Any], name: str, problems: Problems
) -> tuple[float, ...] | None:
    """Turn x, y, width, height into xyxy within the image; None when no area is left."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_finite(v) for v in bbox):
        problems.add("annotations without a box of four numbers", "dropped", name)
        return None
    x, y, w, h = (float(v) for v in bbox)
    if w <= 0 or h <= 0:
        problems.add("zero-area boxes", "dropped", name)
        return None
    width, height = float(image["width"]), float(image["height"])
    box = (max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height))
    if box[2] <= box[0] or box[3] <= box[1]:
        problems.add("boxes outside of their image", "dropped", name)
        return None
    if max(-x, -y, x + w - width, y + h - height) > _SLACK:
        problems.add("boxes partly outside of their image", "clipped", name)
    return box


def _is_repeated(key: Any, seen: set[Any]) -> bool:
    """Whether an earlier annotation has this id. Annotations without an id may repeat."""
    key = _hashable(key)
    if key is None:
        return False
    if key in seen:
        return True
    seen.add(key)
    return False


def _hashable(value: Any) -> int | str | None:
    return value if isinstance(value, int | str) else None


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _positive(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 1
