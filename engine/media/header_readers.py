"""Reading the headers of pictures' files, without decoding the pictures.

Pillow reads the headers, except where it is slow, gives up, or drops what is needed here: PNG (it
decodes the picture to look for EXIF behind it), TIFF (it knows no floats in colour) and PNM and BMP
(it does not say the largest value, and refuses rare forms).
"""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from retinart.engine.errors import BadInput
from retinart.engine.media.header import Header
from retinart.engine.media.pixel_limit import pixel_limit

COPY = "Copy it again, or open it in a viewer to see what it is"
_ORIENTATION = 0x0112  # of EXIF and TIFF
_MOST_IN_A_ROW = 1 << 16  # reads of a byte
_BYTES_A_PIXEL, _MORE_BYTES = 4, 64 << 20
_LONGEST_TEXT = 1 << 18  # bytes; EXIF has 64 KiB at most
_PNG_TEXT_EXIF = b"Raw profile type exif\0"  # how ImageMagick wrote EXIF before PNG had a chunk


def read_header(path: Path) -> Header:
    """The header of a picture's file. This takes about 50 us, as nothing is decoded.

    Raises:
        BadInput: the file cannot be opened, or is not a picture that retinart reads.
    """
    try:
        with open_file(path) as file:
            return parse_header(file, path)
    except OSError as error:
        raise BadInput(
            f"cannot read the image {path}", why=error.strerror or str(error), fix="Check the path"
        ) from error


def open_file(path: Path) -> BinaryIO:
    """A regular file, open; a pipe or a device would make its reader wait for ever.

    Raises:
        OSError: the file does not exist, may not be read, or is longer than an image can be.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(0, "it is a pipe or a device")
    limit, file = pixel_limit(), path.open("rb")
    size = os.fstat(file.fileno()).st_size
    if size > (most := _BYTES_A_PIXEL * limit + _MORE_BYTES):  # a file with holes costs nothing
        file.close()
        raise OSError(0, f"it has {size:,} bytes, and {most:,} are the most for {limit:,} pixels")
    return file


def parse_header(file: BinaryIO, path: Path) -> Header:
    """The header of an open picture's file.

    Args:
        file: open for bytes, at its beginning.
        path: to name in errors.

    Raises:
        BadInput: it is not a picture that retinart reads.
    """
    start = file.read(32)
    file.seek(0)
    what = f"cannot decode the image {path}"
    if not start:
        raise BadInput(f"cannot read the image {path}", why="the file is empty", fix=COPY)
    for magic, why, fix in _REFUSED:
        if magic.match(start):
            raise BadInput(what, why=why, fix=fix)
    read = next((read for magic, read in _READERS if magic.match(start)), None)
    try:
        header = None if read is None else read(file)
    except _Refused as refused:
        raise BadInput(what, why=refused.why, fix=refused.fix) from refused
    except Exception:  # damaged files make Pillow raise many kinds of errors
        header = None
    if header is None or min(header.stored) < 1:
        raise BadInput(what, why="it is truncated or no image format", fix=COPY)
    return header


class _Refused(Exception):
    def __init__(self, why: str, fix: str) -> None:
        self.why, self.fix = why, fix
        super().__init__(why)


_PILLOW = {  # the module that opens each format, and what in it
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "JPEG": ("JpegImagePlugin", "jpeg_factory"),
    "JPEG2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "PNM": ("PpmImagePlugin", "PpmImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
}


def open_with_pillow(file: BinaryIO, format: str) -> Any:
    """Pillow's image of an open file, of which the header is read.

    It is not by `PIL.Image.open`, whose limit of pixels is a setting of the whole process.
    """
    _silence_pillow()
    module, opener = _PILLOW[format]
    return getattr(import_module(f"PIL.{module}"), opener)(_Bounded(file))


class _Bounded:
    """A file whose reader may not look for its next part for ever.

    Pillow reads bytes that do not belong to a GIF or JPEG file one by one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._row = file, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        self._row = self._row + 1 if size == 1 else 0
        if self._row > _MOST_IN_A_ROW:
            raise OSError("it has a gap in it")
        return self._file.read(size)


def _by_pillow(format: str) -> Callable[[BinaryIO], Header]:
    """A reader of one format's headers that is Pillow's."""

    def read(file: BinaryIO) -> Header:
        try:
            image = open_with_pillow(file, format)
        except SyntaxError as error:
            if "bit layers" in str(error):  # JPEG of 12 bits
                why = f"Pillow and OpenCV {error}"
                raise _Refused(why, "Write it as PNG of 16 bits, or as JPEG of 8 bits") from error
            _check_codec(format)
            raise
        except ImportError:
            _check_codec(format)
            raise
        width, height = image.size
        return Header(
            format=image.format,
            stored=(height, width),
            orientation=_orientation(image.info.get("exif", b"")),
            white=0 if image.mode.startswith("I") else 255,
            several=(several := _is_animated(image)),
            alpha="A" in image.mode or "transparency" in image.info,
            cmyk=image.mode == "CMYK",
            # OpenCV neglects how AVIF is turned, scales JPEG 2000 wrongly, and lacks the others
            # before version 4.11
            by_pillow=format in ("AVIF", "GIF", "JPEG2000") or (format == "WEBP" and several),
        )

    return read


def _check_codec(format: str) -> None:
    """See that Pillow was built with a format.

    Raises:
        _Refused: it was not.
    """
    from PIL import features

    feature = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}.get(format, "")
    if feature and (feature not in features.get_supported()):
        raise _Refused(
            f"this Pillow does not read {format}", "Install Pillow's own wheel, or convert the file"
        )


def _jpeg2000(file: BinaryIO) -> Header:
    """As Pillow reads it, which scales by the stated depth but drops bits of 16."""
    start = file.read(4096)
    file.seek(0)
    header = _by_pillow("JPEG2000")(file)
    size = start.find(b"\xff\x4f\xff\x51")  # the marker in front of the sizes
    bits = 1 + (start[size + 42] & 0x7F) if 0 <= size < len(start) - 42 else 8
    return replace(header, white=0 if bits == 16 else (1 << bits) - 1, by_pillow=bits != 16)


def _is_animated(image: Any) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage behind the first frame
        return True


@cache
def _silence_pillow() -> None:
    """Keep Pillow's warnings about damaged metadata from stderr: they name neither file nor fix."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _orientation(exif: bytes) -> int:
    """1 to 8, from the bytes of an EXIF block; 1 where it says nothing that makes sense."""
    from PIL import Image

    if not exif:
        return 1
    _silence_pillow()
    tags = Image.Exif()
    try:
        tags.load(exif)
        return _valid(tags.get(_ORIENTATION))
    except Exception:  # of a damaged block
        return 1


def _valid(orientation: Any) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _png(file: BinaryIO) -> Header:
    file.seek(8)
    exif, several, alpha, white, stored = b"", False, False, 255, (0, 0)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND" or not kind.isalpha():
            break
        begin = file.tell()
        if kind == b"IHDR":
            width, height, bits, colour = struct.unpack(">IIBB", file.read(10))
            stored, alpha = (height, width), colour in (4, 6)
            white = 0 if bits == 16 else 255
        elif kind == b"tRNS":
            alpha = True
        elif kind == b"acTL":
            several = struct.unpack(">I", file.read(4))[0] > 1
        elif kind == b"eXIf":
            exif = file.read(length)
        elif kind in (b"tEXt", b"zTXt"):
            text = file.read(min(length, _LONGEST_TEXT))
            if text.startswith(_PNG_TEXT_EXIF):
                exif = exif or _exif_of_text(text[len(_PNG_TEXT_EXIF) :], packed=kind == b"zTXt")
        file.seek(begin + length + 4)
    return Header(
        format="PNG",
        stored=stored,
        orientation=_orientation(exif),
        white=white,
        several=several,
        alpha=alpha,
    )


def _exif_of_text(text: bytes, *, packed: bool) -> bytes:
    """EXIF as ImageMagick writes it into text: a name, a length, and lines of hexadecimals."""
    try:
        if packed:  # the first byte is the method
            text = zlib.decompressobj().decompress(text[1:], _LONGEST_TEXT)
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except (ValueError, zlib.error):
        return b""


def _tiff(file: BinaryIO) -> Header:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    _silence_pillow()
    start = file.read(16)
    tags = ImageFileDirectory_v2(start[: 16 if start[2] == 43 or start[3] == 43 else 8])
    file.seek(tags.next)
    tags.load(file)

    def values(tag: int, default: int) -> tuple[int, ...]:
        found = tags.get(tag, default)
        return tuple(found) if isinstance(found, tuple) else (found,)

    (width,), (height,) = values(256, 0), values(257, 0)
    bits, kind, samples = max(values(258, 1)), values(339, 1)[0], values(277, 1)[0]
    kinds = {2: "signed whole numbers", 3: f"floats of {bits} bits", 5: "complex", 6: "complex"}
    if kind in kinds or bits > 16:
        raise _Refused(
            f"its pixels are {kinds.get(kind, f'numbers of {bits} bits')}, and nothing says which "
            "values are black and white",
            "Scale them to 0 to 255 and write the picture with 8 bits, or to 65535 with 16",
        )
    if samples > 4:
        raise _Refused(
            f"it has {samples} channels", "Write those that stand for red, green and blue"
        )
    photometric, extra = values(262, 1)[0], values(338, -1)
    stated = values(281, 0)[0]  # MaxSampleValue
    full = stated if bits == 16 and 255 <= stated < 65535 else 0
    return Header(
        format="TIFF",
        stored=(height, width),
        orientation=_valid(values(_ORIENTATION, 1)[0]),
        # OpenCV scales 10 to 14 bits to 16 itself, as it unpacks them
        white=255 if bits <= 8 else full if bits == 16 else 65535,
        several=bool(tags.next),
        alpha=extra[0] in (1, 2),
        cmyk=photometric == 5,
        inverted=photometric == 0 and bits > 8,
        by_pillow=extra[0] == 2 and bits <= 8,  # OpenCV multiplies the colours with such alpha
    )


def _pnm(file: BinaryIO) -> Header:
    space = rb"(?:\s|#[^\n]*\n)+"
    number = space + rb"(\d{1,9})"
    start = file.read(4096)
    head = re.match(rb"P([1-6])" + number + number, start)
    if head is None:
        raise ValueError("no sizes")
    white = 255
    if head[1] not in b"14":
        value = re.match(number, start[head.end() :])
        if value is None:
            raise ValueError("no largest value")
        white = int(value[1])
    return Header(
        format="PNM",
        stored=(int(head[3]), int(head[2])),
        white=0 if white == 65535 else white,
        by_pillow=white not in (255, 65535),  # OpenCV scales to the largest value at times only
    )


def _bmp(file: BinaryIO) -> Header:
    file.seek(14)
    (size,) = struct.unpack("<I", file.read(4))
    width, height = struct.unpack("<HH" if size == 12 else "<ii", file.read(4 if size == 12 else 8))
    return Header(format="BMP", stored=(abs(height), width))


_FLOATS = "its pixels are floats, and nothing says which values are black and white"
_TO_8 = "Scale them to 0 to 255 and write the picture with 8 bits, or to 65535 with 16"
_CONVERT = "Convert it to JPEG or PNG"
_REFUSED = (
    (re.compile(rb"\x76\x2f\x31\x01|#\?R|P[Ff]\s", re.S), _FLOATS, _TO_8),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ", re.S), "JPEG XL is not read", _CONVERT),
    (
        re.compile(rb".{4}ftyp(?:hei|hev|mif1(?!.{0,16}avif)|msf1(?!.{0,16}avi))", re.S),
        "HEIC is not read",
        f"{_CONVERT}; an iPhone writes JPEG with Settings, Camera, Formats, Most Compatible",
    ),
    (
        re.compile(rb"version https://git-lfs"),
        "it is a pointer of Git LFS, not the file itself",
        "Fetch it with `git lfs pull`",
    ),
    (re.compile(rb"\s*<(?:!doctype|html)", re.I), "it is a web page", "Download the image itself"),
)
_READERS: tuple[tuple[re.Pattern[bytes], Callable[[BinaryIO], Header]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _by_pillow("JPEG")),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"), _tiff),
    (re.compile(rb"RIFF.{4}WEBP", re.S), _by_pillow("WEBP")),
    (re.compile(rb"GIF8[79]a"), _by_pillow("GIF")),
    (re.compile(rb".{4}ftyp(?:avi|mif1|msf1)", re.S), _by_pillow("AVIF")),
    (
        re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
        _jpeg2000,
    ),
    (re.compile(rb"P[1-6]\s"), _pnm),
    (re.compile(rb"BM"), _bmp),
)
