"""The time table of MP4 files that OpenCV wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retinart.engine.media.mp4 import has_sound, set_times
from retinart.engine.media.video import VideoReader, VideoWriter
from support import write_video

SIZE = (96, 128)


def _times(path: Path) -> list[float]:
    with VideoReader(path) as video:
        return [frame.time_ms for frame in video if frame.time_ms is not None]


def _write(path: Path, times: list[float], fps: float = 25) -> VideoWriter:
    with VideoWriter(path, fps=fps, size=SIZE) as video:
        for i, time_ms in enumerate(times):
            video.write(np.full((*SIZE, 3), 9 * i % 256, np.uint8), time_ms)
    return video


def test_a_variable_rate_is_kept(tmp_path: Path) -> None:
    times = [0.0, 40.0, 80.0, 500.0, 540.0, 580.0, 2000.0, 2040.5]
    assert not _write(tmp_path / "v.mp4", times).times_lost
    assert _times(tmp_path / "v.mp4") == pytest.approx(times, abs=0.1)
    with VideoReader(tmp_path / "v.mp4") as video:
        assert video.announced == 8
        shown = [round(float(frame.image.mean()) / 9) for frame in video]
    assert shown == list(range(8))


def test_times_begin_at_zero_and_never_run_backwards(tmp_path: Path) -> None:
    _write(tmp_path / "v.mp4", [5000.0, 5100.0, 5050.0, 5300.0])
    assert _times(tmp_path / "v.mp4") == pytest.approx([0, 100, 100, 300], abs=0.2)


def test_a_constant_rate_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **more: object) -> None:
        raise AssertionError("rewritten")

    monkeypatch.setattr("retinart.engine.media.video.set_times", fail)
    _write(tmp_path / "v.mp4", [40.0 * i for i in range(9)])
    assert _times(tmp_path / "v.mp4") == pytest.approx([40.0 * i for i in range(9)])
    with pytest.raises(AssertionError, match="rewritten"):  # every other frame of such a video
        _write(tmp_path / "w.mp4", [80.0 * i for i in range(9)])


def test_a_slow_drift_is_no_constant_rate(tmp_path: Path) -> None:
    """29.97 written as 30 would be seconds off after an hour."""
    times = [1000 * i / 29.97 for i in range(600)]
    _write(tmp_path / "v.mp4", times, fps=30)
    assert _times(tmp_path / "v.mp4") == pytest.approx(times, abs=0.2)


def test_a_file_of_another_form_is_said_to_have_lost_its_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise ValueError("a box of 64 bits in the index")

    monkeypatch.setattr("retinart.engine.media.video.set_times", fail)
    assert _write(tmp_path / "v.mp4", [0.0, 100.0, 1000.0]).times_lost
    assert len(_times(tmp_path / "v.mp4")) == 3


@pytest.mark.parametrize("content", [b"", b"\0\0\0\x08mdat", b"\0\0\0\xffmoov", b"no video at all"])
def test_what_is_no_mp4_is_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"index|box"):
        set_times(path, [0.0, 1.0], last_ms=1)
    assert path.read_bytes() == content
    assert has_sound(path) is None


def test_sound(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4")
    assert has_sound(path) is False
    data = path.read_bytes()
    path.write_bytes(data.replace(b"vide", b"soun", 1))  # its track's handler
    assert has_sound(path) is True
    assert has_sound(write_video(tmp_path / "v.avi")) is None
