"""The ids that detections have in a COCO results list: an annotation file's, or COCO's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.detections import Detections
from retinart.engine.evaluation.class_names import match_classes
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.coco_json import Id
from retinart.engine.evaluation.coco_names import coco_category_ids
from retinart.engine.evaluation.results import coco_result

NO_IDS = (
    "{file} has {keys}, which pycocotools does not take; `annotations` gives it the ids of a COCO "
    "file"
)


@dataclass(frozen=True, kw_only=True)
class ImageId:
    """The id of an image, and its annotated (height, width), or None."""

    image_id: Id
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class ResultIds:
    """How images and classes are called in COCO results.

    Attributes:
        classes: names of the model's classes.
        category: the category id of each class index; empty where none is known. Then `class_index`
            and `class_name` stand in place of `category_id`.
        images: the id of each image by its source; empty where none is known. Then `image_index`
            and `file_name` stand in place of `image_id`.
        annotations: the file that the ids are of, or None.
        lines: what to say about it.
    """

    classes: Sequence[str]
    category: Mapping[int, Id] = field(default_factory=dict)
    images: Mapping[str, ImageId] = field(default_factory=dict)
    annotations: Path | None = None
    lines: Sequence[str] = ()

    def lacks_image(self, source: str) -> bool:
        """Whether other images have an id, and this one has none."""
        return self.annotations is not None and source not in self.images

    def entries(
        self, source: str, number: int, size: tuple[int, int], found: Detections
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The position of each detection that has a name, and its entry.

        Args:
            source: path of the image.
            number: index of the image or frame.
            size: (height, width) of the image.
            found: in pixels of the image.
        """
        image = self.images.get(source)
        wanted = None if image is None else image.size
        if wanted is not None and wanted != size:
            ratio = np.array([wanted[1] / size[1], wanted[0] / size[0]] * 2)
            found = replace(found, xyxy=(found.xyxy * ratio).astype(np.float32))
        for position, (box, score, label) in enumerate(found):
            if self.category and label not in self.category:
                continue
            entry = coco_result(
                number if image is None else image.image_id,
                self.category.get(label, label),
                box.tolist(),
                score,
            )
            named: dict[str, Any] = {}
            if image is None:
                named |= {"image_index": entry.pop("image_id"), "file_name": Path(source).name}
            if not self.category:
                named["class_index"] = entry.pop("category_id")
                named["class_name"] = self.classes[label]
            yield position, {**named, **entry}


def ids_of_annotations(
    classes: Sequence[str], annotations: Path, images: Sequence[Path]
) -> ResultIds:
    """The ids that an annotation file gives to images and classes.

    Raises:
        BadInput: as `load_coco`; or the file shares no class name with the model.
    """
    dataset = load_coco(annotations, images, need_objects=False)
    matched = match_classes(classes, dataset)
    known = {
        str(image.path): ImageId(image_id=image.image_id, size=(image.height, image.width))
        for image in dataset.images
    }
    return ResultIds(
        classes=classes,
        category=matched.category,
        images=known,
        annotations=annotations,
        lines=[
            f"{len(known)} of the {len(images)} images have an id in {annotations.name}",
            *map(str, dataset.problems),
            *matched.lines,
        ],
    )


def ids_of_coco(classes: Sequence[str], images: Sequence[Path], file: Path) -> ResultIds:
    """COCO's ids where the classes are COCO's; the image's is the number in its file's name.

    Args:
        classes: of the model.
        images: all sources, if they are images.
        file: of the results, to say what it holds.
    """
    category = coco_category_ids(classes)
    numbers = {str(path): int(path.stem) for path in images if path.stem.isdecimal()}
    if not category or len(set(numbers.values())) != len(images):
        numbers = {}  # of some only, a number could equal another image's index
    keys = [] if numbers else ["image_index"]
    keys += [] if category else ["class_index"]
    return ResultIds(
        classes=classes,
        category=category,
        images={source: ImageId(image_id=number) for source, number in numbers.items()},
        lines=[NO_IDS.format(file=file.name, keys=" and ".join(keys))] if keys else [],
    )
