"""Video files: frame rates that containers misstate, and files that could not be written whole."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinart.engine.errors import BadInput
from retinart.engine.media.video import VideoReader, VideoWriter

SIZE = (96, 128)


def _write(path: Path, *, frames: int = 50, fps: float = 25, codec: str = "mp4v") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, SIZE[::-1])
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((*SIZE, 3), 5 * i, np.uint8))
    writer.release()
    return path


class _Fields:
    """A capture that names the rate of fields, as FFmpeg does for H.264 in MPEG-TS."""

    def __init__(self, path: str) -> None:
        self._capture = _REAL(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)

    def get(self, prop: int) -> float:
        if prop == cv2.CAP_PROP_FRAME_COUNT:
            return 2 * self._capture.get(prop) - 1
        return self._capture.get(prop) * (2 if prop == cv2.CAP_PROP_FPS else 1)


_REAL = cv2.VideoCapture


def test_times_overrule_a_rate_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: 99 frames at 50 a second announced for 50 frames at 25."""
    monkeypatch.setattr(cv2, "VideoCapture", _Fields)
    with VideoReader(_write(tmp_path / "v.ts")) as video:
        assert (video.counted, video.announced) == (False, 50)
        assert video.fps == pytest.approx(25)
        assert sum(1 for _ in video) == video.announced == 50
    with VideoReader(_write(tmp_path / "v.mp4")) as video:  # its header counts
        assert (video.counted, video.fps, video.announced) == (True, 50, 99)
        assert sum(1 for _ in video) == 50 and video.announced == 99


def test_a_guess_of_the_number_of_frames_gives_way_to_the_frames(tmp_path: Path) -> None:
    with VideoReader(_write(tmp_path / "v.mpg", codec="MPG2")) as video:
        assert not video.counted and video.announced != 50
        assert sum(1 for _ in video) == video.announced == 50


def test_a_guess_that_the_frames_do_not_reach_stands(tmp_path: Path) -> None:
    """Matroska's header holds the length: half of the file ends early."""
    path = _write(tmp_path / "v.mkv", codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoReader(path) as video:
        assert 5 < sum(1 for _ in video) < 40
        assert video.announced == 50


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    for name in ("v.mp4", "v.mpg", "v.avi"):
        with VideoWriter(tmp_path / name, fps=25, size=SIZE) as writer:
            for i in range(20):
                writer.write(np.full((*SIZE, 3), 9 * i, np.uint8))
            assert not (tmp_path / name).exists()
        with VideoReader(tmp_path / name) as video:
            assert sum(1 for _ in video) == writer.written == 20


def test_frames_that_the_encoder_lost(tmp_path: Path) -> None:
    path = tmp_path / "new" / "v.mp4"
    with (  # noqa: PT012
        pytest.raises(BadInput) as raised,
        VideoWriter(path, fps=25, size=SIZE) as writer,
    ):
        for _ in range(3):
            writer.write(np.zeros((*SIZE, 3), np.uint8))
        writer.written += 1
    assert str(raised.value) == (
        f"the video {path} could not be written: of 4 frames 3 can be read back. See that the disk "
        "is not full and that no limit on file sizes is in force."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    """OpenCV says nothing; the file would lack its index, and no player open it."""
    code = (
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from retinart.engine.media.video import VideoWriter\n"
        "rng = np.random.default_rng(0)\n"
        "with VideoWriter(Path('v.mp4'), fps=25, size=(96, 128)) as writer:\n"
        "    for _ in range(40):\n"
        "        writer.write(rng.integers(0, 255, (96, 128, 3), np.uint8))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
    )
    assert "BadInput: the video v.mp4 could not be written: of 40 frames 0 can be" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_paths_that_are_not_utf8(tmp_path: Path) -> None:
    """OpenCV would end the process."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    with (
        pytest.raises(
            BadInput, match=r"cannot open the video .*caf\\udce9/v\.mp4: its path is not"
        ),
        VideoWriter(path.with_suffix("") / "v.mp4", fps=25, size=SIZE),
    ):
        raise AssertionError("not reached")
    assert list(tmp_path.iterdir()) == []
    try:
        path.write_bytes(_write(tmp_path / "v.mp4").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(BadInput, match="its path is not UTF-8"):
        VideoReader(path)
