"""Annotations in Pascal VOC's form: an XML file for each image, read into COCO's lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from retinart.engine.common.bounded_reading import MIB, read_bytes
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco_json import Document, number, side
from retinart.engine.evaluation.problems import Problems

_MOST = 8 * MIB  # of a file; its elements take twenty times as much
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    folder: Path, files: Sequence[Path], pictures: Sequence[Path], problems: Problems
) -> Document:
    """Read the XML files of a folder.

    VOC counts pixels from 1, and `xmax` is the last one inside. Many programs write corners from 0
    instead. A file set that has a corner at 0 counts from 0.

    Args:
        folder: of the files, for errors.
        files: the XML files.
        pictures: the image files. An XML file with another `filename` belongs to the image that has
            the name of the XML file.
        problems: is added to.

    Returns:
        The lists of a COCO file, with classes in the order of the alphabet. An object marked as
        difficult is a crowd: it counts neither as hit nor as miss.

    Raises:
        BadInput: a file cannot be read, or is not an annotation of VOC's form.
    """
    known, called = {p.name for p in pictures}, {p.stem: p.name for p in pictures}
    images, found = [], list[tuple[int, str, list[float | None], bool]]()
    for image_id, path in enumerate(files, 1):
        root = _root(path)
        size = root.find("size")
        name = (root.findtext("filename") or "").strip()
        images.append(
            {
                "id": image_id,
                "file_name": name if name in known else called.get(path.stem, name or path.stem),
                "height": None if size is None else side(size.findtext("height")),
                "width": None if size is None else side(size.findtext("width")),
            }
        )
        for position, entry in enumerate(root.iterfind("object")):
            label = (entry.findtext("name") or "").strip()
            if not label:
                raise BadInput(
                    f"object number {position} of {path} has no name",
                    why="its class is unknown",
                    fix="Give it a name, or remove it",
                )
            box = entry.find("bndbox")
            corners = [None if box is None else number(box.findtext(key)) for key in _CORNERS]
            difficult = number(entry.findtext("difficult") or 0) == 1
            found.append((image_id, label, corners, difficult))
    names = {name: i for i, name in enumerate(sorted({label for _, label, _, _ in found}), 1)}
    if not names:
        raise BadInput(
            f"no file in {folder} has an object", fix="Check that it is the right folder"
        )
    from_zero = any(c == 0 for _, _, corners, _ in found for c in corners[:2])
    if from_zero:
        effect = "their corners are taken as they are, not as VOC's, which count from 1"
        problems.add("sets of VOC files that count pixels from 0", effect, str(folder))
    annotations = [
        {
            "id": k,
            "image_id": image_id,
            "category_id": names[label],
            "bbox": _xywh(corners, 0 if from_zero else 1),
            "iscrowd": int(difficult),
        }
        for k, (image_id, label, corners, difficult) in enumerate(found, 1)
    ]
    categories = [{"id": i, "name": name} for name, i in names.items()]
    return Document(images=images, annotations=annotations, categories=categories)


def _root(path: Path) -> Any:
    """The element `annotation` of a file."""
    data = read_bytes(path, noun="annotations", most=_MOST)
    why = ""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        why = "it declares entities, which no annotation needs"
    else:
        try:
            root = ElementTree.fromstring(data)
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            why = f"it is not XML or was cut off ({error})"
        else:
            if root.tag == "annotation":
                return root
            why = f"it holds {root.tag!r}, not 'annotation'"
    raise BadInput(
        f"cannot read the annotations {path}", why=why, fix="Write or copy the file again"
    )


def _xywh(corners: Sequence[float | None], first: int) -> list[float] | None:
    """The box of corners, where `first` is the number of the first pixel; None without four."""
    known = [c for c in corners if c is not None]
    if len(known) != 4:
        return None
    left, top, right, bottom = known
    return [left - first, top - first, right - left + first, bottom - top + first]
