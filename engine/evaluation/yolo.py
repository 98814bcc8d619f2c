"""Annotations in YOLO's form: a text file for each image, read into COCO's lists.

A line is `class x y width height`: the number of the class, from 0, and the box's centre and sides
as shares of the image. A line of a class and three or more points is an outline, whose box counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retinart.engine.common.bounded_reading import MIB, check_plain, read_text
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.evaluation.coco_json import Document, number
from retinart.engine.evaluation.problems import Problems
from retinart.engine.media.header_readers import read_header

_MOST = 8 * MIB  # of a label file
_MOST_LINES = 100_000
_MOST_YAML = MIB // 4
_NAMES = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml")
_FIX = "Write `class x y width height` in each line, with shares of the image"
_NUMBER = re.compile(r"[0-9]{1,9}")
_BEYOND = 1.5  # a share above which a number must be pixels


def read_yolo(source: Path, images: Sequence[Path], problems: Problems) -> Document:
    """Read the label files of images.

    Args:
        source: a `data.yaml`, or the folder of the label files with the names of the classes in it
            (or above it).
        images: the image files. With a `data.yaml` the labels of `a/images/x.jpg` are
            `a/labels/x.txt`, or `x.txt` beside the image.
        problems: is added to.

    Returns:
        The lists of a COCO file. Categories have the numbers of the classes. An image without a
        label file has no objects.

    Raises:
        BadInput: a file cannot be read, is not in YOLO's form, or no image has a label file.
    """
    folder = source if source.is_dir() else None
    names = read_names(source)
    labels = {path: _label_file(path, folder) for path in images}
    if not any(labels.values()):
        where = f"in {folder}" if folder else "in `labels` beside `images`, or beside the images"
        raise BadInput(
            f"none of the {len(images)} images has a label file",
            why=f"{images[0].stem}.txt is missing {where}",
            fix="Give the folder of the label files",
        )
    listed, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for image_id, (path, file) in enumerate(labels.items(), 1):
        if file is None:
            problems.add("images without a label file", "they count as without objects", path.name)
        lines = _lines(file) if file else []
        listed.append({"id": image_id, "file_name": path.name})
        try:
            height, width = read_header(path).shown
        except BadInput:
            continue  # the common checks report it
        listed[-1] |= {"height": height, "width": width}
        for kind, (x, y, w, h) in lines:
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": kind}
            annotations.append({**entry, "bbox": box})
    if folder is not None:
        used = {file for file in labels.values() if file}
        for file in sorted(set(folder.glob("*.txt")) - used):
            if file.name not in _NAMES:
                problems.add("label files without an image", "not used", file.name)
    categories = [{"id": i, "name": name} for i, name in names.items()]
    return Document(images=listed, annotations=annotations, categories=categories)


def read_names(source: Path) -> Mapping[int, str]:
    """The names of the classes by number, from a YAML file, or from a file in or above a folder.

    Raises:
        BadInput: there are none.
    """
    if source.is_file():
        return _from_yaml(source)
    for folder in (source, source.parent, source.parent.parent):
        for name in _NAMES:
            if (path := folder / name).is_file():
                if path.suffix == ".yaml":
                    return _from_yaml(path)
                lines = read_text(path, noun="names of the classes").splitlines()
                return {i: line.strip() for i, line in enumerate(lines) if line.strip()}
    raise BadInput(
        f"the labels in {source} have no class names",
        why=f"there is no {', '.join(_NAMES)} in it or above it",
        fix="Write classes.txt with the name of a class in each line",
    )


def _from_yaml(path: Path) -> Mapping[int, str]:
    """The names in a YAML file. Each of its values is read as text, a `no` or a date too."""
    try:
        import yaml
    except ImportError as error:
        raise MissingDependency.package("pyyaml", "eval", "reading YAML") from error

    class Loader(yaml.BaseLoader):  # type: ignore[misc]
        """A value that refers to others can stand for far more text than the file has."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError(f"it has the reference *{self.peek_event().anchor}")
            return super().compose_node(parent, index)

    text = read_text(path, noun="names of the classes", most=_MOST_YAML)
    try:
        found = yaml.load(text, Loader)  # which makes texts, lists and dicts only
        check_plain(found)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadInput(
            f"cannot read {path} as YAML", why=" ".join(str(error).split()), fix="Write it again"
        ) from error
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, list):
        names = {str(i): name for i, name in enumerate(names)}
    if not isinstance(names, dict) or not names or not all(map(_NUMBER.fullmatch, names)):
        raise BadInput(
            f"{path} names no classes",
            why="it has no list `names`, and no map of numbers to names",
            fix="Write `names: [one, two]`",
        )
    for key, name in names.items():
        if not isinstance(name, str) or not name:
            raise BadInput(
                f"{path} gives class {key} no name",
                why="its name is " + ("empty" if not name else "a list or a map"),
                fix="Write `names: [one, two]`",
            )
    return {int(key): names[key] for key in sorted(names, key=int)}


def _label_file(image: Path, folder: Path | None) -> Path | None:
    """The label file of an image, if there is one."""
    name = f"{image.stem}.txt"
    if folder is not None:
        places = [folder / name]
    else:
        parts = list(image.absolute().parts)
        at = max((i for i, part in enumerate(parts[:-1]) if part == "images"), default=None)
        places = [image.with_name(name)]
        if at is not None:
            places.insert(0, Path(*parts[:at], "labels", *parts[at + 1 : -1], name))
    return next((path for path in places if path.is_file()), None)


def _lines(path: Path) -> list[tuple[int, tuple[float, ...]]]:
    """The class and the box of each line: centre and sides as shares of the image.

    Raises:
        BadInput: a line is not in YOLO's form.
    """
    found = []
    lines = read_text(path, noun="labels", most=_MOST).splitlines()
    if len(lines) > _MOST_LINES:
        raise BadInput(
            f"the labels {path} have {len(lines):,} lines",
            why=f"{_MOST_LINES:,} are the most that are read for an image",
            fix=_FIX,
        )
    for count, line in enumerate(lines, 1):
        if not (words := line.split()):
            continue
        numbers = [number(word) for word in words]
        values = [value for value in numbers[1:] if value is not None]
        kind, why = numbers[0], ""
        if kind is None or not kind.is_integer() or kind < 0:
            why = f"its first word is {words[0][:40]!r}, not the number of a class"
        elif len(values) < len(words) - 1:
            why = "not all of its words are numbers"
        elif len(values) != 4 and (len(values) < 6 or len(values) % 2):
            why = f"it has {len(values)} numbers after the class"
            if len(values) == 5:
                why += ", as detections with a confidence have"
        elif max(map(abs, values)) > _BEYOND:
            why = f"{max(values, key=abs):g} is not a share of the image"
        if why:
            raise BadInput(f"line {count} of {path} is not in YOLO's form", why=why, fix=_FIX)
        assert kind is not None
        found.append((int(kind), tuple(values) if len(values) == 4 else _around(values)))
    return found


def _around(points: Sequence[float]) -> tuple[float, ...]:
    """The box around points, as centre and sides."""
    x, y = points[::2], points[1::2]
    return (max(x) + min(x)) / 2, (max(y) + min(y)) / 2, max(x) - min(x), max(y) - min(y)
