"""Annotations in COCO's, YOLO's and Pascal VOC's form, all of them as COCO's lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.engine.common.files import sha256, write_json
from retinart.engine.common.kept_state import content_sha256
from retinart.engine.evaluation.coco_json import Document, read_document
from retinart.engine.evaluation.problems import Problems
from retinart.engine.evaluation.voc import read_voc
from retinart.engine.evaluation.yolo import read_yolo
from retinart.engine.media.images import list_images

_YAML = (".yaml", ".yml")


def read_annotations(
    path: Path, images: Path | Sequence[Path], problems: Problems, *, need_objects: bool = True
) -> Document:
    """The lists of an annotation file or folder.

    Args:
        path: a COCO file; YOLO's `data.yaml`, or a folder of its label files; or a folder of VOC's
            XML files.
        images: the folder of the images, or the image files.
        problems: is added to.
        need_objects: see `read_document`.

    Raises:
        BadInput: the annotations cannot be read, or are in no form that is known.
    """
    if not _is_other(path):
        return read_document(path, need_objects=need_objects)
    files = list_images(str(images)) if isinstance(images, Path) else list(images)
    if path.is_dir() and (found := sorted(path.glob("*.xml"))):
        return read_voc(path, found, files, problems)
    return read_yolo(path, files, problems)


def annotations_sha256(path: Path, images: Path) -> str:
    """A hash of annotations: of a COCO file's bytes, or of what other forms say."""
    if not _is_other(path):
        return sha256(path)
    return content_sha256(vars(read_annotations(path, images, Problems())))


def write_coco(document: Document, path: Path) -> None:
    """Write a COCO file with an area and a crowd mark for each object that has a box."""
    annotations: list[dict[str, Any]] = []
    for entry in document.annotations:
        if entry.get("bbox") is not None:
            _, _, width, height = entry["bbox"]
            extra = {"area": width * height, "iscrowd": 0}
            annotations.append({**extra, **entry, "id": len(annotations) + 1})
    content = {
        "images": list(document.images),
        "annotations": annotations,
        "categories": list(document.categories),
    }
    write_json(path, content)


def _is_other(path: Path) -> bool:
    """Whether annotations are not in COCO's form, by their path."""
    return path.is_dir() or path.suffix.lower() in _YAML
