"""Picture files that tests forge: TIFF of any type of values, and PNG and EXIF by their parts."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

Values = npt.NDArray[Any]


def tiff(
    values: Values,
    *,
    orientation: int = 1,
    pages: int = 1,
    more: Mapping[int, Sequence[int]] | None = None,
) -> bytes:
    """An uncompressed TIFF file of values (H, W) or (H, W, C), RGB if C is 3 or 4.

    Args:
        values: of any type.
        orientation: its tag.
        pages: how often the picture is in it.
        more: further tags, or other values of those that are written, by number.
    """
    values = np.ascontiguousarray(values)
    height, width, *rest = values.shape
    channels = rest[0] if rest else 1
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    out = b"II*\0" + struct.pack("<I", 8)
    for page in range(pages):
        tags: dict[int, Sequence[int]] = {
            256: [width], 257: [height], 258: [8 * values.itemsize] * channels, 259: [1],
            262: [2 if channels >= 3 else 1], 273: [0], 274: [orientation], 277: [channels],
            278: [height], 279: [values.nbytes], 339: [kind] * channels, **(more or {}),
        }  # fmt: skip
        data_at = len(out) + 2 + 12 * len(tags) + 4
        lists = b""
        entries = b""
        lengths = {tag: 4 * len(v) for tag, v in tags.items() if len(v) > 1}
        tags[273] = [data_at + sum(lengths.values())]
        for tag, numbers in sorted(tags.items()):
            field = struct.pack(f"<{len(numbers)}I", *numbers)
            if len(numbers) > 1:
                field, lists = struct.pack("<I", data_at + len(lists)), lists + field
            entries += struct.pack("<HHI", tag, 4, len(numbers)) + field
        end = data_at + len(lists) + values.nbytes
        out += struct.pack("<H", len(tags)) + entries
        out += struct.pack("<I", end if page + 1 < pages else 0) + lists + values.tobytes()
    return out


def exif(orientation: int) -> bytes:
    """An EXIF block that holds the orientation alone."""
    block = Pillow.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def encoded(rgb: Values, format: str, **more: Any) -> bytes:
    """A picture (H, W, 3) RGB, as Pillow writes it, in another `mode` and with `alpha`."""
    image = Pillow.fromarray(rgb)
    if mode := more.pop("mode", ""):
        image = image.convert(mode)
    if (alpha := more.pop("alpha", None)) is not None:
        image.putalpha(Pillow.fromarray(alpha))
    file = io.BytesIO()
    image.save(file, format, **more)
    return file.getvalue()


def turned(format: str, rgb: Values, orientation: int) -> bytes:
    """A lossless or nearly lossless file of a picture with an orientation."""
    if format == "TIFF":
        return tiff(rgb, orientation=orientation)
    more: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True},
        "AVIF": {"quality": 100},
    }  # fmt: skip
    return encoded(rgb, format, exif=exif(orientation), **more[format])


def png(width: int, height: int, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks, with its header and its end."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), *chunks, (b"IEND", b""))
    )
