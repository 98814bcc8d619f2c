"""The folder that the CPU's part makes and the GPU's part needs, and how it travels in packs.

It is flat: `bundle.json`, engines each with its .json, images, and reference detections (.npz).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from retinart.engine.common.files import atomic_path
from retinart.engine.common.typed_json import read_typed
from retinart.engine.detections import Detections
from retinart.engine.model.info import Precision
from retinart.engine.tensorrt.engine_file import NmsForm

NAME = "bundle.json"
_PART, _LAST = ".part", ".last"
_ARRAYS = ("xyxy", "confidence", "class_id")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One engine to see.

    Attributes:
        title: network, size and precision, for the reports.
        trained: its weights are the given ones, so that its detections mean something.
        precision: of its ONNX file.
        engine: the name of its file.
        nms: its form of NMS.
        native: of the one with the file's own NMS, where `engine` has a plugin's; else "".
        references: files of reference detections, by the runtime that found them.
    """

    title: str
    trained: bool
    precision: Precision
    engine: str
    nms: NmsForm
    native: str
    references: dict[str, str]

    @property
    def network(self) -> str:
        """The title without the precision."""
        return self.title.partition(", ")[0]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What is in the folder.

    Attributes:
        of: hashes and versions of what it was made from.
        images: names of the image files.
        items: the engines in the order in which they should be seen.
    """

    SCHEMA: ClassVar[int] = 2
    AGAIN: ClassVar[str] = "Make the folder again with `prepare`, and bring all of its packs"

    of: dict[str, str]
    images: tuple[str, ...]
    items: tuple[Item, ...] = ()

    def files(self) -> list[str]:
        """Names of all files; what is seen first comes first."""
        names = [NAME, *self.images]
        for item in self.items:
            for engine in filter(None, (item.engine, item.native)):
                names += [engine, f"{engine}.json"]
            names += item.references.values()
        return names


def read_bundle(folder: Path) -> Bundle:
    """The bundle of a folder, after joining the files that travelled in parts.

    Raises:
        BadInput: it is missing, damaged, or of another version.
    """
    for first in sorted(folder.glob(f"*{_PART}000")):
        path = first.with_name(first.name.removesuffix(f"{_PART}000"))
        parts = sorted(folder.glob(f"{path.name}{_PART}*"))
        if parts[-1].name == f"{path.name}{_PART}{len(parts) - 1:03}{_LAST}":  # all are there
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                for part in parts:
                    file.write(part.read_bytes())
    return read_typed(Bundle, folder / NAME)


def split(folder: Path, size: int) -> list[Path]:
    """Packs of at most `size` bytes: FOLDER/packs/1, 2 and so on, in place of earlier ones.

    Larger files go in parts, which `read_bundle` joins once all packs lie in one folder.
    """
    if (root := folder / "packs").is_dir():
        shutil.rmtree(root)
    packs: list[Path] = []
    left = 0
    for name in read_bundle(folder).files():
        data, part = (folder / name).read_bytes(), 0
        while data or not part:
            if left <= 0 or (len(data) > left and len(data) <= size):  # whole, if it can be
                packs.append(root / str(len(packs) + 1))
                packs[-1].mkdir(parents=True)
                left = size
            whole = part == 0 and len(data) <= left
            last = _LAST if len(data) <= left else ""
            to = name if whole else f"{name}{_PART}{part:03}{last}"
            (packs[-1] / to).write_bytes(data[:left])
            data, left, part = data[left:], left - len(data[:left]), part + 1
    return packs


def save_detections(path: Path, found: Sequence[Detections]) -> None:
    """Write the detections of each image as .npz."""
    arrays = {f"{name}_{i}": getattr(d, name) for i, d in enumerate(found) for name in _ARRAYS}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_detections(path: Path) -> list[Detections]:
    """What `save_detections` wrote."""
    with np.load(path) as data:
        count = len(data.files) // len(_ARRAYS)
        return [Detections(**{name: data[f"{name}_{i}"] for name in _ARRAYS}) for i in range(count)]
