"""Reading images of every format as 8-bit BGR."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput
from retinart.engine.media.header import Header
from retinart.engine.media.header_readers import COPY, open_file, open_with_pillow, parse_header
from retinart.engine.media.pixel_limit import check_pixels

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[Any]
# Told of each image that is changed on its way, as (kind, effect, example): kind is in the plural.
Note = Callable[[str, str, str], None]

# HEIC is among them so that such images are reported as skipped
IMAGE_SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".pgm"),
        *(".png", ".ppm", ".tif", ".tiff", ".webp"),
    )
)
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: Path, *, note: Note | None = None) -> Image:
    """An image file as viewers show it.

    It is turned and mirrored as EXIF says. Grey images get three channels, alpha is dropped, and of
    several frames or pages the first is taken. More than 8 bits are scaled to 8: by the largest
    value that the file states; otherwise, of 16 bits, by the smallest of 8, 10, 12, 14 and 16 bits
    that the image's largest value needs.

    Args:
        path: the file.
        note: told what was changed.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        BadInput: the file is missing, empty, not an image that can be read, or has more pixels than
            `pixel_limit()`.
    """
    try:
        with open_file(path) as file:
            return _read(file, path, note)
    except OSError as error:
        raise BadInput(
            f"cannot read the image {path}", why=error.strerror or str(error), fix="Check the path"
        ) from error


def decode_image(data: bytes, *, name: str = "in memory", note: Note | None = None) -> Image:
    """The bytes of an image file as viewers show it; see `read_image`.

    Args:
        data: all of the file.
        name: how to call it in an error.
        note: told what was changed.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        BadInput: as `read_image`.
    """
    return _read(BytesIO(data), Path(name), note)


def _read(file: BinaryIO, path: Path, note: Note | None) -> Image:
    header = parse_header(file, path)
    check_pixels(header, path)
    file.seek(0)
    data = file.read()
    values = _decoded(data, header, path)
    white = header.white or _white(values)
    # Pillow scales to the largest value that is stated itself, to 8 or 16 bits
    full = (255 if values.dtype == np.uint8 else 65535) if header.by_pillow else white
    image = _in_8_bits(values, full)
    if header.inverted:
        image = ~image
    if note is not None:
        for kind, effect in _changes(header, white):
            note(kind, effect, path.name)
    # OpenCV turns TIFF itself
    return as_bgr(image if header.format == "TIFF" else upright(image, header.orientation))


def why_skipped(error: BadInput) -> str:
    """Why an image cannot be read, and what to do, for a line that names the file itself.

    What to do is left out for damaged files: there may be many of them, and it is obvious.
    """
    parts = (error.why or error.what, "" if error.fix == COPY else error.fix)
    return ". ".join(part for part in parts if part)


def upright(image: Image, orientation: int) -> Image:
    """An image turned and mirrored as an orientation of EXIF says."""
    if orientation >= 5:
        image = np.asarray(cv2.transpose(image), np.uint8)
    # the last step: left to right, both, top to bottom
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else np.asarray(cv2.flip(image, flip), np.uint8)


def _decoded(data: bytes, header: Header, path: Path) -> Values:
    """The pixels as they are stored: (H, W) or (H, W, 3) BGR, of any type."""
    try:
        if header.by_pillow:
            return _by_pillow(data, header.format)
        # OpenCV does not end a number of ASCII PNM with the file
        end = b"\n" if header.format == "PNM" else b""
        values = cv2.imdecode(np.frombuffer(data + end, np.uint8), _FLAGS)
    except MemoryError:
        raise
    except cv2.error as error:
        raise BadInput(f"cannot decode the image {path}", why=error.err, fix=COPY) from error
    except Exception:  # damaged files make Pillow raise many kinds of errors
        values = None
    if values is None:
        raise BadInput(
            f"cannot decode the image {path}", why="it is truncated or no image format", fix=COPY
        )
    return values


def _by_pillow(data: bytes, format: str) -> Values:
    image = open_with_pillow(BytesIO(data), format)
    image.load()
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)
    return np.asarray(image.convert("RGB"), np.uint8)[:, :, ::-1]


def _white(values: Values) -> int:
    """The largest value of the smallest depth in use that holds all values.

    Lossy JPEG 2000 exceeds a depth a little.
    """
    largest = int(values.max())
    depths = (255, 1023, 4095, 16383) if largest else ()  # black says nothing
    return next((white for white in depths if largest <= white + white // 64), 65535)


def _in_8_bits(values: Values, white: int) -> Image:
    """Values from 0 to `white` as 8 bits."""
    if values.dtype == np.uint8 and white == 255:
        return np.asarray(values, np.uint8)
    bits = white.bit_length()
    if white == (1 << bits) - 1 and bits >= 8:
        return (np.minimum(values, white) >> (bits - 8)).astype(np.uint8)
    table = np.rint(np.minimum(np.arange(1 << 16), white) * (255 / white)).astype(np.uint8)
    return np.asarray(table[values], np.uint8)


def _changes(header: Header, white: int) -> Iterator[tuple[str, str]]:
    """What is changed of an image: the kind of image, and the change."""
    bits = white.bit_length()
    if not header.white and white < 65535:
        yield f"images with values of {bits} bits in 16, by the largest one", "scaled from those"
    elif white > 255:
        yield f"images of {bits} bits", "scaled to 8"
    if header.several:
        yield "images of several frames or pages", "the first one is taken"
    if header.orientation > 1:
        yield "images turned or mirrored by EXIF", "taken as viewers show them"
    if header.alpha:
        yield "images with an alpha channel", "it is left out"
    if header.cmyk:
        yield "CMYK images", "converted without a colour profile"


def as_bgr(image: npt.NDArray[Any], name: str = "the frame") -> Image:
    """Check an array that a caller hands in, and make it (H, W, 3) uint8 BGR.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA; uint8, or uint16, which is
            scaled to 8 bits as `read_image` scales it.
        name: how to call it in an error.

    Raises:
        BadInput: another type or shape, or no pixels.
    """
    if not isinstance(image, np.ndarray):
        raise BadInput(
            f"{name} is a {type(image).__name__}", fix="Pass a NumPy array, HxWx3 uint8 BGR"
        )
    if image.dtype == np.uint16 and image.size:
        image = _in_8_bits(image, _white(image))
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
        if path.is_dir() and (below := _first_below(path)) is not None:
            raise BadInput(
                f"no images at {source}",
                why=f"they are in its subfolders, which are not searched: {below}",
                fix=f"Give a subfolder, or a glob in quotes: '{path / '**' / '*'}{below.suffix}'",
            )
        raise BadInput(
            f"no images at {source}",
            why=_why_none(path, source),
            fix=f"Suffixes that count as images: {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    return sorted(found)


def _why_none(path: Path, source: str) -> str:
    if path.is_dir():
        return "the folder holds none"
    pattern = _is_glob(source) or "%" in source
    return "nothing matches" if pattern else "there is no such file or folder"


def _first_below(folder: Path) -> Path | None:
    """An image in a folder's subfolders, if there is one among the first thousands of files."""
    below = itertools.islice(folder.glob("*/**/*"), 5000)
    return next((p for p in below if p.suffix.lower() in IMAGE_SUFFIXES), None)


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
