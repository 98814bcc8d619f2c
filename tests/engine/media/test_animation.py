"""Animated pictures as videos: every frame in order, turned, with its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from made_pictures import Values, encoded, exif
from retinart.engine.errors import BadInput
from retinart.engine.media.animation import AnimationReader
from retinart.engine.media.frame import Frame
from retinart.engine.media.header_readers import read_header
from retinart.engine.media.image_source import ImageSource
from retinart.engine.media.settings import LiveSettings, Position, Selection
from retinart.engine.media.source import Source
from retinart.engine.media.sources import Sources

Open = Callable[..., Source]
LEVELS = (10, 100, 200, 250)


def _animated(format: str, **more: Any) -> bytes:
    frames: list[Values] = []
    for level in LEVELS:
        frames.append(np.full((36, 48, 3), level, np.uint8))
        frames[-1][:18, :24] = 0  # where the top left is
    rest = [Pillow.fromarray(frame) for frame in frames[1:]]
    return encoded(frames[0], format, save_all=True, append_images=rest, **more)


def _all(source: Source) -> list[Frame]:
    frames = []
    while (frame := source.take()) is not None:
        frames.append(frame)
    return frames


@pytest.fixture
def opened() -> Iterator[Open]:
    """A source by its name, closed behind the test."""
    every: list[Sources] = []

    def open_one(path: Path | str, **selection: Any) -> Source:
        chosen = Selection(**selection)
        every.append(Sources([str(path)], selection=chosen, settings=LiveSettings()))
        return every[-1].all[0]

    yield open_one
    for sources in every:
        sources.close()


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF"])
def test_every_frame_comes_with_its_time(opened: Open, tmp_path: Path, format: str) -> None:
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(_animated(format, duration=40))
    source = opened(path)
    assert isinstance(source, AnimationReader) and not source.stills
    assert (source.size, source.rate, source.counts.announced) == ((36, 48), 25, 4)
    frames = _all(source)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.time_ms for frame in frames] == [0, 40, 80, 120]
    for frame, level in zip(frames, LEVELS, strict=True):
        assert frame.image[30, 40].mean() == pytest.approx(level, abs=4)
        assert frame.image[5, 5].mean() < 8
    assert (source.counts.taken, source.counts.ended) == (4, "end")


def test_frames_without_times_are_shown_as_browsers_show_them(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(_animated("GIF"))
    source = opened(tmp_path / "a.gif", start=Position(seconds=0.1), every=2)
    frames = _all(source)
    assert [(frame.index, frame.time_ms) for frame in frames] == [(1, 100), (3, 300)]
    counts = source.counts
    assert (source.rate, counts.read, counts.skipped, counts.ended) == (10, 4, 2, "end")


def test_animations_are_turned(opened: Open, tmp_path: Path) -> None:
    for format in ("PNG", "WEBP"):
        path = tmp_path / f"a.{format.lower()}"
        path.write_bytes(_animated(format, duration=40, exif=exif(6)))
        source = opened(path)
        frame = source.take()
        assert frame is not None and source.size == frame.image.shape[:2] == (48, 36)
        assert frame.image[5, 30].mean() < 8 < frame.image[5, 5].mean(), format


def test_a_picture_for_viewers_without_animation_is_no_frame(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_animated("PNG", duration=40, default_image=True))
    source = opened(tmp_path / "a.png")
    frame = source.take()
    assert frame is not None and source.counts.announced == 3
    assert frame.image[30, 40].mean() == pytest.approx(LEVELS[1])


@pytest.mark.parametrize("name", ["", "*.gif"])
def test_in_a_folder_and_by_a_glob_an_animation_is_a_picture(
    opened: Open, tmp_path: Path, name: str
) -> None:
    (tmp_path / "a.gif").write_bytes(_animated("GIF", duration=40))
    source = opened(f"{tmp_path}/{name}")
    assert isinstance(source, ImageSource) and source.take() is not None and source.take() is None


def test_pages_and_single_frames_are_pictures(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(_animated("TIFF"))
    (tmp_path / "b.gif").write_bytes(encoded(np.zeros((36, 48, 3), np.uint8), "GIF"))
    for name in ("a.tif", "b.gif"):
        assert isinstance(opened(tmp_path / name), ImageSource)


def test_a_damaged_animation_ends_early(opened: Open, tmp_path: Path) -> None:
    data = _animated("PNG", duration=40)
    third = [i for i in range(len(data)) if data[i : i + 4] == b"fdAT"][1]
    (tmp_path / "a.png").write_bytes(data[: third + 8] + bytes(8) + data[third + 16 :])
    source = opened(tmp_path / "a.png")
    frames = _all(source)
    assert 1 <= len(frames) < 4 and source.counts.ended == "early"


def test_too_many_pixels(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(_animated("GIF", duration=40))
    monkeypatch.setenv("RETINART_MAX_PIXELS", "1000")
    with pytest.raises(BadInput, match=r"image size \(1728 pixels\) exceeds limit of 1000 pixels"):
        opened(path)
    assert read_header(path).several
