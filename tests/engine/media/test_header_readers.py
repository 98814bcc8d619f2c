"""What headers say of pictures, and pictures of every kind as 8-bit BGR."""

from __future__ import annotations

import os
import re
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import features

from made_pictures import Values, encoded, exif, png, tiff, turned
from retinart.engine.errors import BadInput
from retinart.engine.media import header_readers
from retinart.engine.media.header import is_turned
from retinart.engine.media.header_readers import read_header
from retinart.engine.media.images import as_bgr, read_image
from retinart.engine.media.pixel_limit import limited_pixels, pixel_limit

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


@pytest.fixture
def rgb() -> Values:
    """(36, 48, 3) uint8 RGB, without symmetry."""
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, (48, 36), interpolation=cv2.INTER_CUBIC), np.uint8)


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _noted(path: Path) -> tuple[Values, list[str]]:
    """A picture as RGB, and what was changed of it."""
    said: list[str] = []
    image = read_image(path, note=lambda kind, effect, name: said.append(f"{kind} ({effect})"))
    return image[:, :, ::-1], said


def _differs(image: Values, expected: Values) -> float:
    assert image.shape == expected.shape
    return float(np.abs(image.astype(int) - expected).mean())


def _shown(rgb: Values, orientation: int) -> Values:
    """By the definition of EXIF: where row 0 and column 0 of the stored picture are."""
    turned = rgb.swapaxes(0, 1) if orientation >= 5 else rgb
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]  # row 0 (column 0 of those that are turned) is at the bottom
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return turned


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_of_all_formats(
    tmp_path: Path, rgb: Values, format: str, orientation: int
) -> None:
    path = _write(tmp_path / "a", turned(format, rgb, orientation))
    header = read_header(path)
    assert (header.format, header.orientation, header.stored) == (format, orientation, (36, 48))
    image, said = _noted(path)
    assert header.shown == image.shape[:2]
    assert _differs(image, _shown(rgb, orientation)) < 6
    assert ("images turned or mirrored by EXIF (taken as viewers show them)" in said) == (
        orientation > 1
    )


@pytest.mark.parametrize("values", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("orientation", [2, 6, 7])
def test_tiff_of_any_depth_is_turned(
    tmp_path: Path, rgb: Values, values: str, channels: int, orientation: int
) -> None:
    stored = np.dstack([rgb, rgb[:, :, :1]])[:, :, :channels]
    deep = stored if values == "uint8" else stored.astype(np.uint16) * 257
    alpha = {338: [2]} if channels == 4 else {}
    path = _write(tmp_path / "a.tif", tiff(deep, orientation=orientation, more=alpha))
    image, said = _noted(path)
    expected = _shown(rgb if channels > 1 else np.repeat(rgb[:, :, :1], 3, 2), orientation)
    assert _differs(image, expected) == 0
    assert ("images of 16 bits (scaled to 8)" in said) == (values == "uint16")
    assert ("images with an alpha channel (it is left out)" in said) == (channels == 4)


@pytest.mark.parametrize("place", ["eXIf before", "eXIf behind", "tEXt", "zTXt"])
def test_exif_anywhere_in_a_png(tmp_path: Path, rgb: Values, place: str) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in rgb)
    text = b"\nexif\n  99\n" + exif(6).hex().encode()
    chunks = {
        "eXIf before": [(b"eXIf", exif(6))],
        "eXIf behind": [],
        "tEXt": [(b"tEXt", b"Raw profile type exif\0" + text)],
        "zTXt": [(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))],
    }[place]
    chunks.append((b"IDAT", zlib.compress(rows)))
    chunks += [(b"eXIf", exif(6))] if place == "eXIf behind" else []
    path = _write(tmp_path / "a.png", png(48, 36, 8, 2, *chunks))
    assert read_header(path).orientation == 6
    assert _differs(_noted(path)[0], np.rot90(rgb, 3)) == 0


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(
    tmp_path: Path, rgb: Values, orientation: int
) -> None:
    for format in FORMATS[:4]:
        path = _write(tmp_path / format, turned(format, rgb, orientation))
        image, said = _noted(path)
        assert _differs(image, rgb) < 6 and not said, format


def test_damaged_exif_turns_nothing(tmp_path: Path, rgb: Values) -> None:
    path = _write(tmp_path / "a.jpg", encoded(rgb, "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff"))
    assert read_header(path).orientation == 1 and _noted(path)[0].shape == rgb.shape


def test_what_turned_against_its_annotations_means() -> None:
    assert is_turned((48, 36), (36, 48))
    assert not is_turned((36, 48), (36, 48))
    assert not is_turned((36, 48), (72, 96))
    assert not is_turned((48, 48), (48, 48))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PNM", "array"])
def test_sixteen_bits_by_those_in_use(tmp_path: Path, rgb: Values, kind: str, bits: int) -> None:
    rgb = rgb.copy()
    rgb[0, 0] = 255
    deep = np.left_shift(rgb.astype(np.uint16), bits - 8)
    said: list[str] = []
    if kind == "array":
        image = as_bgr(deep)
    else:
        swapped = np.ascontiguousarray(deep[:, :, ::-1])
        data = {
            "PNG": lambda: cv2.imencode(".png", swapped)[1].tobytes(),
            "TIFF": lambda: tiff(deep),
            "PNM": lambda: b"P6 48 36 65535\n" + deep.astype(">u2").tobytes(),
        }[kind]()
        image, said = _noted(_write(tmp_path / "a", data))
        by = f"images with values of {bits} bits in 16, by the largest one (scaled from those)"
        assert said == ([by] if bits < 16 else ["images of 16 bits (scaled to 8)"])
    assert _differs(image, rgb) == 0


def test_a_depth_that_the_file_states_counts_more_than_its_values(
    tmp_path: Path, rgb: Values
) -> None:
    dark = (rgb // 8).astype(np.uint16) << 4  # 12 bits, of which 9 are in use
    image, said = _noted(_write(tmp_path / "a.tif", tiff(dark, more={281: [4095]})))
    assert _differs(image, rgb // 8) == 0 and said == ["images of 12 bits (scaled to 8)"]
    data = b"P6\n# twelve bits\n48 36\n4095\n" + dark.astype(">u2").tobytes()
    image, said = _noted(_write(tmp_path / "a.ppm", data))
    assert _differs(image, rgb // 8) == 0 and said == ["images of 12 bits (scaled to 8)"]


@pytest.mark.parametrize("white", [1, 15, 100, 255, 1000])
def test_a_pnm_file_names_its_white(tmp_path: Path, rgb: Values, white: int) -> None:
    values = np.rint(rgb / 255 * white).astype(int)
    text = f"P3 48 36 {white} ".encode() + " ".join(map(str, values.ravel())).encode()
    assert _differs(_noted(_write(tmp_path / "a.ppm", text))[0], rgb) <= 255 / white / 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_2000_of_sixteen_bits(tmp_path: Path, rgb: Values, channels: int, bits: int) -> None:
    rgb = rgb.copy()
    rgb[0, 0] = 255
    swapped = rgb[:, :, ::-1] if channels == 3 else rgb[:, :, 1]
    stored = np.ascontiguousarray(swapped.astype(np.uint16) << (bits - 8))
    data = cv2.imencode(".jp2", stored)[1].tobytes()
    image, said = _noted(_write(tmp_path / "a.jp2", data))
    assert _differs(image, rgb if channels == 3 else np.repeat(rgb[:, :, 1:2], 3, 2)) < 4
    assert len(said) == 1 and (f"of {bits} bits" in said[0])


def test_a_codec_that_pillow_lacks_is_named(
    tmp_path: Path, rgb: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.avif", encoded(rgb, "AVIF"))
    monkeypatch.setattr(features, "get_supported", lambda: ["webp"])
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)
    with pytest.raises(BadInput, match=r"this Pillow does not read AVIF\. Install Pillow's own"):
        read_image(path)


def test_black_of_sixteen_bits(tmp_path: Path) -> None:
    image, said = _noted(_write(tmp_path / "a.tif", tiff(np.zeros((4, 6, 3), np.uint16))))
    assert not image.any() and said == ["images of 16 bits (scaled to 8)"]


def test_white_is_zero(tmp_path: Path, rgb: Values) -> None:
    grey = rgb[:, :, :1]
    for stored in (255 - grey, 65535 - grey.astype(np.uint16) * 257):
        image, _ = _noted(_write(tmp_path / "a.tif", tiff(stored[:, :, 0], more={262: [0]})))
        assert _differs(image, np.repeat(grey, 3, 2)) == 0


@pytest.mark.parametrize(
    ("format", "mode", "note"),
    [
        ("PNG", "1", ""), ("TIFF", "1", ""), ("BMP", "1", ""), ("GIF", "1", ""),
        ("PNG", "L", ""), ("JPEG", "L", ""), ("PNG", "P", ""), ("TIFF", "P", ""), ("GIF", "P", ""),
        ("PNG", "LA", "alpha"), ("PNG", "RGBA", "alpha"), ("TIFF", "RGBA", "alpha"),
        ("WEBP", "RGBA", "alpha"), ("JPEG", "CMYK", "CMYK"), ("TIFF", "CMYK", "CMYK"),
        ("JPEG2000", "RGB", ""), ("JPEG2000", "L", ""),
    ],
)  # fmt: skip
def test_other_colours(tmp_path: Path, rgb: Values, format: str, mode: str, note: str) -> None:
    known: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}
    lossless = known.get(format, {})
    if "A" in mode:  # of every strength, down to none
        lossless["alpha"] = np.random.default_rng(1).integers(0, 255, (36, 48), np.uint8)
        lossless |= {"exact": True} if format == "WEBP" else {}
    path = _write(tmp_path / "a", encoded(rgb, format, mode=mode, **lossless))
    expected = np.asarray(Pillow.fromarray(rgb).convert(mode).convert("RGB"))
    image, said = _noted(path)
    assert _differs(image, expected) < 3
    assert len(said) == bool(note) and all(note in line for line in said)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int8, np.int32, np.uint32])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_without_a_known_range_are_refused(
    tmp_path: Path, dtype: type[np.generic], channels: int
) -> None:
    values = np.ones((4, 6, channels) if channels > 1 else (4, 6), dtype)
    with pytest.raises(BadInput) as raised:
        read_image(_write(tmp_path / "a.tif", tiff(values)))
    assert re.search(
        r"its pixels are (floats of (32|64) bits|signed whole numbers|numbers of 32 bits), and "
        r"nothing says which values are black and white\. Scale them to 0 to 255",
        str(raised.value),
    )


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (b"\x76\x2f\x31\x01\x02\0\0\0", "its pixels are floats"),  # OpenEXR
        (b"#?RADIANCE\n", "its pixels are floats"),
        (b"PF\n4 4\n", "its pixels are floats"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not read"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC is not read"),
        (b"\xff\x0a\xff\xff", "JPEG XL is not read"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL is not read"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n", "it is a web page"),
    ],
)
def test_formats_that_are_not_read_say_so(tmp_path: Path, start: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=f"cannot decode the image .*: {why}.*"):
        read_image(_write(tmp_path / "a.jpg", start + bytes(100)))


def test_jpeg_of_twelve_bits_and_too_many_channels(tmp_path: Path, rgb: Values) -> None:
    data = bytearray(encoded(rgb, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(BadInput, match=r"12-bit layers\. Write it as PNG of 16 bits"):
        read_image(_write(tmp_path / "a.jpg", bytes(data)))
    many = np.dstack([rgb, rgb])
    with pytest.raises(BadInput, match=r"it has 6 channels\. Write those that stand for red"):
        read_image(_write(tmp_path / "a.tif", tiff(many, more={338: [0, 0, 0]})))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_the_first_of_several_frames_is_taken_and_noted(tmp_path: Path, format: str) -> None:
    frames = [np.full((36, 48, 3), level, np.uint8) for level in (10, 100, 200)]
    rest = [Pillow.fromarray(frame) for frame in frames[1:]]
    several = encoded(frames[0], format, save_all=True, append_images=rest)
    image, said = _noted(_write(tmp_path / "a", several))
    assert image.mean() == pytest.approx(10, abs=2)
    assert said == ["images of several frames or pages (the first one is taken)"]
    if format != "MPO":
        assert _noted(_write(tmp_path / "b", encoded(frames[0], format)))[1] == []


@pytest.mark.parametrize(
    "data",
    [
        png(30_000, 30_000, 8, 0, (b"IDAT", b"")),
        b"BM" + bytes(12) + struct.pack("<Iii", 40, 30_000, -30_000) + bytes(99),
        b"P5 30000 30000 255\n",
        tiff(np.zeros((4, 4, 3), np.uint8), more={256: [30_000], 257: [30_000]}),
    ],
    ids=["png", "bmp", "pnm", "tiff"],
)
def test_pixels_are_counted_before_they_are_decoded(tmp_path: Path, data: bytes) -> None:
    path = _write(tmp_path / "a", data)
    tracemalloc.start()
    with pytest.raises(BadInput) as raised:
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert str(raised.value) == (
        f"cannot decode the image {path}: image size (900000000 pixels) exceeds limit of 100000000 "
        "pixels, could be decompression bomb DOS attack. Make it smaller or cut it into tiles; if "
        "you trust it, raise `max_pixels`."
    )


def test_the_limit_can_be_changed(
    tmp_path: Path, rgb: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.png", encoded(rgb, "PNG"))
    with limited_pixels(36 * 48 - 1), pytest.raises(BadInput, match="exceeds limit of 1727 pixels"):
        read_image(path)
    with limited_pixels(36 * 48):
        assert read_image(path).shape == (36, 48, 3)
    assert pixel_limit() == 100_000_000
    monkeypatch.setenv("RETINART_MAX_PIXELS", "many")
    with pytest.raises(BadInput, match="RETINART_MAX_PIXELS is 'many'"):
        read_image(path)


@pytest.mark.parametrize(("width", "height"), [(32_769, 32_768), ((1 << 20) + 1, 1)])
def test_what_opencv_never_reads(tmp_path: Path, width: int, height: int) -> None:
    path = _write(tmp_path / "a.png", png(width, height, 8, 0, (b"IDAT", b"")))
    with limited_pixels(1 << 40), pytest.raises(BadInput) as raised:
        read_image(path)
    assert str(raised.value) == (
        f"cannot decode the image {path}: its size is {width}x{height}, and OpenCV reads at most "
        "1073741824 pixels and 1048576 a side. Make it smaller, or cut it into tiles."
    )


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BadInput, match="it is a pipe or a device"):
        read_image(tmp_path / "a.png")


def test_headers_are_read_without_the_pixels(tmp_path: Path, rgb: Values) -> None:
    for format in ("JPEG", "PNG", "TIFF"):
        data = turned(format, rgb, 6)
        cut = data if format == "TIFF" else data[: len(data) // 2]
        assert read_header(_write(tmp_path / "a", cut)).shown == (48, 36)


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 "])
def test_a_file_with_holes_is_longer_than_an_image(tmp_path: Path, start: bytes) -> None:
    """Of 6 GiB, PNG was read for minutes, and WebP took all of them in memory."""
    path = tmp_path / "a.png"
    path.write_bytes(start)
    os.truncate(path, 6 << 30)
    for read in (read_header, read_image):
        with pytest.raises(BadInput, match=r"a\.png: it has 6,442,450,944 bytes, and 467,108,864"):
            read(path)


def test_a_png_file_ends_where_its_chunks_do(tmp_path: Path, rgb: Values) -> None:
    """Zeros behind them would count as half a million chunks without a name."""
    path = tmp_path / "a.png"
    path.write_bytes(encoded(rgb, "PNG") + png(9, 9, 8, 0)[8:])
    assert read_header(path).shown == rgb.shape[:2]
    path.write_bytes(png(9, 8, 8, 0)[:33] + bytes(12) + png(7, 7, 8, 0)[8:])
    assert read_header(path).shown == (8, 9)


@pytest.mark.parametrize("format", ["GIF", "JPEG"])
def test_a_gap_in_a_file_is_not_looked_through(
    tmp_path: Path, rgb: Values, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow takes a second for each ten megabytes of it."""
    path, gap = tmp_path / "a.img", bytes(100_000)
    data = encoded(rgb, format)
    path.write_bytes(data[:20] + gap + data[20:] if format == "JPEG" else data[:-1] + gap + b";")
    monkeypatch.setattr(header_readers, "_MOST_IN_A_ROW", 1 << 20)
    expected = read_header(path).shown
    monkeypatch.undo()
    if format == "JPEG":
        with pytest.raises(BadInput, match="truncated or no image"):
            read_header(path)
    else:  # the first frame can be read
        assert read_header(path).shown == expected
    assert expected == rgb.shape[:2]
