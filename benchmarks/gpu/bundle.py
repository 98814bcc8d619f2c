"""The folder that the CPU's part makes and the GPU's part needs, and how it travels in packs.

It is flat: `bundle.json`, engines each with its .json, images, and reference detections (.npz).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.files import atomic_path
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image, read_image
from retinart.engine.model.info import Precision

NAME = "bundle.json"
CALL = 64 << 20  # bytes that the lent machines take at a time
_PART, _LAST = ".part", ".last"
_ARRAYS = ("xyxy", "confidence", "class_id")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One engine to see.

    Attributes:
        title: what the reports call it.
        trained: its weights are the given ones, so that its detections mean something.
        precision: of its file.
        engine: the name of its file.
        native: of the one with the file's own NMS, where `engine` has the plugin's; else "".
        references: files of reference detections, by the runtime that found them.
    """

    title: str
    trained: bool
    precision: Precision
    engine: str
    native: str
    references: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What is in the folder.

    Attributes:
        folder: where it is.
        of: hashes and versions of what it was made from.
        images: names of the image files.
        items: the engines, those first that should be seen first.
    """

    folder: Path
    of: dict[str, str]
    images: tuple[str, ...]
    items: tuple[Item, ...] = ()

    def save(self) -> None:
        """Write `bundle.json`."""
        data = {"of": self.of, "images": self.images, "items": [asdict(i) for i in self.items]}
        with atomic_path(self.folder / NAME) as temporary:
            temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """What `save` wrote, after joining the files that travelled in parts.

        Raises:
            BadInput: it is not there, or damaged.
        """
        join_parts(folder)
        try:
            data: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
            return cls(
                folder=folder,
                of=data["of"],
                images=tuple(data["images"]),
                items=tuple(Item(**item) for item in data["items"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{folder} is no folder that verify --prepare made",
                why=f"{NAME}: {error!r}",
                fix="Make it with --prepare, and bring all of its packs",
            ) from error

    def read_images(self) -> list[Image]:
        """Each (H, W, 3) uint8 BGR."""
        return [read_image(self.folder / name) for name in self.images]


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


def weights(folder: Path) -> dict[str, int]:
    """The bytes of each file, in the order of `bundle.json`: what is seen first comes first."""
    bundle = Bundle.load(folder)
    names = [NAME, *bundle.images]
    for item in bundle.items:
        for engine in filter(None, (item.engine, item.native)):
            names += [engine, f"{engine}.json"]
        names += item.references.values()
    return {n: (folder / n).stat().st_size for n in names if (folder / n).is_file()}


def split(folder: Path, size: int) -> list[Path]:
    """Packs of at most `size` bytes: FOLDER/packs/1, 2 and so on, in place of earlier ones.

    Larger files go in parts, which `Bundle.load` joins once all packs lie in one folder.
    """
    if (root := folder / "packs").is_dir():
        shutil.rmtree(root)
    packs: list[Path] = []
    left = 0
    for name in weights(folder):
        data = (folder / name).read_bytes()
        part = 0
        while True:
            if left <= 0 or (len(data) > left and len(data) <= size):  # whole, if it can be
                packs.append(root / str(len(packs) + 1))
                packs[-1].mkdir(parents=True)
                left = size
            whole = part == 0 and len(data) <= left
            last = _LAST if len(data) <= left else ""
            to = name if whole else f"{name}{_PART}{part:03}{last}"
            (packs[-1] / to).write_bytes(data[:left])
            data, left, part = data[left:], left - len(data[:left]), part + 1
            if not data:
                break
    return packs


def join_parts(folder: Path) -> None:
    """Join the files that came in parts, if all of them are there."""
    for first in sorted(folder.glob(f"*{_PART}000")):
        path = first.with_name(first.name.removesuffix(f"{_PART}000"))
        parts = sorted(folder.glob(f"{path.name}{_PART}*"))
        if parts[-1].name != f"{path.name}{_PART}{len(parts) - 1:03}{_LAST}":
            continue
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            for part in parts:
                file.write(part.read_bytes())


def megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / (1 << 20):.1f} MiB"
