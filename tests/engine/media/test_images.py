"""Images of files and callers become 8-bit BGR, or an error says why not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image, as_bgr, list_images, read_image
from retinart.engine.media.sources import check_files


def _write(path: Path, image: np.ndarray[Any, np.dtype[Any]]) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def _rotated_jpeg(image: Image, orientation: int) -> bytes:
    """A JPEG with an EXIF block that holds the orientation alone."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"MM\x00\x2a" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    body = b"Exif\x00\x00" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def test_a_colour_image_is_bgr(tmp_path: Path, picture: Image) -> None:
    path = _write(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".pgm"])
def test_grey_gets_three_equal_channels(tmp_path: Path, picture: Image, suffix: str) -> None:
    grey = picture[:, :, 0]
    image = read_image(_write(tmp_path / f"a{suffix}", grey))
    assert image.shape == (120, 180, 3) and image.dtype == np.uint8
    assert (image == image[:, :, :1]).all()
    assert np.abs(image[:, :, 0].astype(int) - grey).mean() < (3 if suffix == ".jpg" else 1e-9)


def test_alpha_is_dropped_not_blended(tmp_path: Path, picture: Image) -> None:
    alpha = np.zeros((120, 180, 1), np.uint8)
    path = _write(tmp_path / "a.png", np.dstack([picture, alpha]))
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, channels: int) -> None:
    deep = (np.arange(48 * channels, dtype=np.uint16) * 450).reshape(6, 8, channels)
    image = read_image(_write(tmp_path / "a.png", deep))
    np.testing.assert_array_equal(image, np.broadcast_to(deep >> 8, (6, 8, 3)))
    np.testing.assert_array_equal(as_bgr(deep), image)  # a caller's array gets the same values


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_applied(
    tmp_path: Path, picture: Image, orientation: int, turns: int
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(_rotated_jpeg(picture, orientation))
    image = read_image(path)
    expected = np.rot90(picture, turns)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 8


def test_one_pixel(tmp_path: Path) -> None:
    pixel = np.array([[[1, 2, 3]]], np.uint8)
    np.testing.assert_array_equal(read_image(_write(tmp_path / "a.png", pixel)), pixel)


def test_eight_thousand_by_six_thousand(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(
        cv2.imencode(".png", np.zeros((6000, 8000), np.uint8), [cv2.IMWRITE_PNG_STRATEGY_RLE, 1])[
            1
        ].tobytes()
    )
    assert read_image(path).shape == (6000, 8000, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated(tmp_path: Path, picture: Image, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    data = cv2.imencode(suffix, picture)[1].tobytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadInput) as raised:
        read_image(path)
    assert str(raised.value) == (
        f"cannot decode the image {path}: it is truncated or no image format. "
        "Copy it again, or open it in a viewer to see what it is."
    )


def test_zero_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.touch()
    with pytest.raises(BadInput) as raised:
        read_image(path)
    assert str(raised.value) == (
        f"cannot read the image {path}: the file is empty. "
        "Copy it again, or open it in a viewer to see what it is."
    )


@pytest.mark.parametrize("content", [b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\0" * 999])
def test_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"cannot decode the image .* truncated or no image format"):
        read_image(path)


def test_missing_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read the image .*none\.png: No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(BadInput, match=r"cannot read the image .*: Is a directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_of_callers(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    rng = np.random.default_rng(1)
    array = rng.integers(0, np.iinfo(dtype).max, shape, dtype)  # type: ignore[arg-type,type-var]
    image = as_bgr(array)
    assert image.shape == (4, 6, 3) and image.dtype == np.uint8
    eight = array if dtype is np.uint8 else array >> 8
    expected = eight[..., None] if eight.ndim == 2 else eight[..., :3]
    np.testing.assert_array_equal(image, np.broadcast_to(expected, (4, 6, 3)))


def test_a_good_array_is_not_copied(picture: Image) -> None:
    assert as_bgr(picture) is picture


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_another_dtype_says_what_to_pass(dtype: type[np.generic]) -> None:
    with pytest.raises(BadInput) as raised:
        as_bgr(np.zeros((4, 6, 3), dtype))
    assert str(raised.value) == (
        f"the frame has dtype {np.dtype(dtype)}: detectors take 8-bit images and normalise them "
        "themselves. Pass uint8 values from 0 to 255, not floats."
    )


@pytest.mark.parametrize(
    "shape", [(), (5,), (0, 6, 3), (4, 0), (0, 0, 1), (4, 6, 2), (4, 6, 5), (1, 4, 6, 3)]
)
def test_another_shape_says_what_to_pass(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"x has shape \(.*\)\. Pass an HxWx3 BGR image\."):
        as_bgr(np.zeros(shape, np.uint8), "x")


@pytest.mark.parametrize("value", [None, "a.jpg", [[1, 2], [3, 4]]])
def test_what_is_no_array(value: Any) -> None:
    with pytest.raises(BadInput, match=r"the frame is a \w+\. Pass a NumPy array, HxWx3 uint8 BGR"):
        as_bgr(value)


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "c.tiff", "notes.txt", "sub/d.png", "sub/deep/e.png"):
        path = tmp_path / "gallery" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "gallery" / "folder.png").mkdir()
    return tmp_path / "gallery"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("", ["a.JPG", "b.png", "c.tiff"]),
        ("/", ["a.JPG", "b.png", "c.tiff"]),
        ("/b.png", ["b.png"]),
        ("/notes.txt", ["notes.txt"]),  # a named file is tried with any suffix
        ("/*", ["a.JPG", "b.png", "c.tiff"]),
        ("/*.png", ["b.png"]),
        ("/**/*.png", ["b.png", "sub/d.png", "sub/deep/e.png"]),
        ("/[ab].*", ["a.JPG", "b.png"]),
        ("/?.png", ["b.png"]),
    ],
)
def test_folders_and_globs(gallery: Path, pattern: str, names: list[str]) -> None:
    assert list_images(f"{gallery}{pattern}") == [gallery / name for name in names]


def test_relative_sources(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gallery)
    assert list_images("*.png") == [Path("b.png")]
    assert list_images("sub") == [Path("sub/d.png")]
    monkeypatch.chdir(gallery / "sub")
    assert list_images("../*.png") == [Path("../b.png")]


def test_a_name_with_brackets_is_a_name_first(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").touch()
    assert list_images(str(tmp_path / "a[1].png")) == [tmp_path / "a[1].png"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("sub/none.png", "there is no such file or folder"),
        ("none", "there is no such file or folder"),
        ("*.webp", "nothing matches"),
        ("sub/deep/empty", "the folder holds none"),
    ],
)
def test_nothing_there(gallery: Path, source: str, why: str) -> None:
    (gallery / "sub/deep/empty").mkdir()
    with pytest.raises(BadInput) as raised:
        list_images(str(gallery / source))
    assert str(raised.value).startswith(f"no images at {gallery / source}: {why}. Suffixes that")
    assert ".jpg" in str(raised.value)


def test_a_folder_with_images_in_its_subfolders_only(tmp_path: Path) -> None:
    """The message said that there were none."""
    (tmp_path / "day" / "1").mkdir(parents=True)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "day" / "1" / "a.PNG").touch()
    glob = tmp_path / "**" / "*.PNG"
    with pytest.raises(BadInput) as raised:
        list_images(str(tmp_path))
    text = str(raised.value)
    assert "subfolders, which are not searched: " in text and f"'{glob}'" in text
    assert list_images(str(glob)) == [tmp_path / "day" / "1" / "a.PNG"]
    with pytest.raises(BadInput, match="subfolders"):  # before a model is loaded
        check_files([str(tmp_path)])


def test_a_pattern_that_is_no_glob(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no images at .*|is not a glob: Invalid pattern"):
        list_images(str(tmp_path / "a**.png"))
