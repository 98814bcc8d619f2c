"""Reading images of every format as 8-bit BGR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput

Image = npt.NDArray[np.uint8]
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
_COPY = "Copy it again, or open it in a viewer to see what it is"


def read_image(path: Path) -> Image:
    """An image file as OpenCV would show it.

    Grey images get three channels, alpha is dropped, 16 bits are scaled to 8, and EXIF
    orientation is applied.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        BadInput: the file is missing, empty, or not an image that OpenCV decodes.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise BadInput(
            f"cannot read the image {path}", why=error.strerror or str(error), fix="Check the path"
        ) from error
    if not data.size:
        raise BadInput(f"cannot read the image {path}", why="the file is empty", fix=_COPY)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadInput(f"cannot decode the image {path}", why=error.err, fix=_COPY) from error
    if image is None:
        raise BadInput(
            f"cannot decode the image {path}",
            why="it is truncated or no image format",
            fix=_COPY,
        )
    return as_bgr(image, str(path))


def as_bgr(image: npt.NDArray[Any], name: str = "the frame") -> Image:
    """Check an array that a caller hands in, and make it (H, W, 3) uint8 BGR.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA; uint8, or uint16, which is
            scaled to 8 bits.
        name: how to call it in an error.

    Raises:
        BadInput: another type or shape, or no pixels.
    """
    if not isinstance(image, np.ndarray):
        raise BadInput(
            f"{name} is a {type(image).__name__}", fix="Pass a NumPy array, HxWx3 uint8 BGR"
        )
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise BadInput(
            f"{name} has dtype {image.dtype}",
            why="detectors take 8-bit images and normalise them themselves",
            fix="Pass uint8 values from 0 to 255, not floats",
        )
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        image = (
            cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR) if image.size else image
        )
    elif image.ndim == 3 and image.shape[2] == 4:
        image = image[:, :, :3]
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise BadInput(f"{name} has shape {image.shape}", fix="Pass an HxWx3 BGR image")
    return np.asarray(image, np.uint8)


def list_images(source: str) -> list[Path]:
    """The images of a file, a folder (not its subfolders) or a glob, sorted by name.

    Raises:
        BadInput: nothing is there, or it holds no file with an image's suffix.
    """
    path = Path(source)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    elif path.is_file():
        found = [path]
    else:
        root = Path(path.anchor) if path.is_absolute() else Path()
        pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else source
        found = _glob(root, pattern) if _is_glob(source) else []
    if not found:
        raise BadInput(
            f"no images at {source}",
            why="the folder holds none" if path.is_dir() else "nothing matches",
            fix=f"Suffixes that count as images: {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    return sorted(found)


def _glob(root: Path, pattern: str) -> list[Path]:
    try:
        return [p for p in root.glob(pattern) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    except ValueError as error:  # such as "a**.jpg"
        raise BadInput(
            f"{pattern} is not a glob",
            why=str(error),
            fix="Write ** as a folder of its own: images/**/*.jpg",
        ) from error


def _is_glob(source: str) -> bool:
    return any(c in source for c in "*?[")
