"""Written videos: their times, sizes and codec, what browsers make of them, and failed writes."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.media import video_writer
from retinart.engine.media.images import Image
from retinart.engine.media.video import VideoReader
from retinart.engine.media.video_writer import VideoWriter
from support import files_below

SIZE = (96, 128)


def _times(path: Path) -> list[float]:
    with VideoReader(path) as video:
        return [frame.time_ms for frame in video if frame.time_ms is not None]


def _write(path: Path, times: list[float], fps: float = 25) -> Path:
    with VideoWriter(path, fps=fps, size=SIZE) as video:
        for i, time_ms in enumerate(times):
            video.write(np.full((*SIZE, 3), 9 * i % 256, np.uint8), time_ms)
    return path


def _noise(size: tuple[int, int] = SIZE, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def test_a_variable_rate_is_kept(tmp_path: Path) -> None:
    times = [0.0, 40.0, 80.0, 500.0, 540.0, 580.0, 2000.0, 2040.5]
    path = _write(tmp_path / "v.mp4", times)
    with VideoReader(path) as video:
        frames = list(video)
        assert video.counts.announced == 8
    assert [f.time_ms for f in frames] == pytest.approx(times, abs=0.1)
    shown = [round(float(frame.image.mean()) / 9) for frame in frames]
    assert shown == list(range(8))


def test_times_begin_at_zero_and_never_run_backwards(tmp_path: Path) -> None:
    path = _write(tmp_path / "v.mp4", [5000.0, 5100.0, 5050.0, 5300.0])
    assert _times(path) == pytest.approx([0, 100, 100, 300], abs=0.2)


def test_frames_without_a_time_have_the_constant_rate(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", fps=29.97, size=SIZE) as video:
        for seed in range(100):
            video.write(_noise(seed=seed))
    expected = [1000 * i / 29.97 for i in range(100)]
    assert _times(tmp_path / "v.mp4") == pytest.approx(expected, abs=0.1)


def test_a_rate_that_is_not_a_whole_number_does_not_drift(tmp_path: Path) -> None:
    """29.97 written as 30 would be seconds off after an hour."""
    times = [1000 * i / 29.97 for i in range(600)]
    assert _times(_write(tmp_path / "v.mp4", times, fps=30)) == pytest.approx(times, abs=0.1)


def test_it_is_h264_as_browsers_play_it(tmp_path: Path) -> None:
    path = _write(tmp_path / "v.mp4", [40.0 * i for i in range(9)])
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.max_b_frames) == ("h264", "yuv420p", 0)
        assert (context.colorspace, context.color_range) == (1, 1)  # BT.709, limited
        assert stream.frames == 9 and stream.average_rate == 25
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # the index first: it plays while it loads


@pytest.mark.parametrize("size", [(97, 131), (97, 128), (96, 131), (1, 1), (16, 16)])
def test_odd_sizes_get_one_more_row_or_column(tmp_path: Path, size: tuple[int, int]) -> None:
    """No pixel is lost, and the one more is a repetition."""
    picture = np.full((*size, 3), 40, np.uint8)
    picture[-1:, :] = picture[:, -1:] = 200
    with VideoWriter(tmp_path / "v.mp4", fps=25, size=size) as video:
        video.write(picture)
    with VideoReader(tmp_path / "v.mp4") as reader:
        (frame,) = reader
    height, width = (n + n % 2 for n in size)
    assert frame.image.shape == (height, width, 3)
    padded = np.pad(picture, ((0, height - size[0]), (0, width - size[1]), (0, 0)), "edge")
    assert np.abs(frame.image[-2:].astype(int) - padded[-2:]).mean() < 10
    assert np.abs(frame.image[:, -2:].astype(int) - padded[:, -2:]).mean() < 10


def test_a_frame_of_another_size_is_fitted_in(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", fps=25, size=SIZE) as video:
        video.write(np.full((*SIZE, 3), 200, np.uint8))
        video.write(np.full((192, 128, 3), 200, np.uint8))
    with VideoReader(tmp_path / "v.mp4") as reader:
        _, frame = reader
    assert frame.image.shape == (*SIZE, 3)
    assert frame.image[:, 40:88].mean() == pytest.approx(200, abs=5)
    assert frame.image[:, :24].mean() < 5 and frame.image[:, -24:].mean() < 5


@pytest.mark.parametrize("name", ["v.mp4", "v.m4v", "v.mov", "v.mkv", "a:b%d.mp4"])
def test_containers_and_names(tmp_path: Path, name: str) -> None:
    times = [0.0, 40.0, 500.0, 2000.0]
    path = _write(tmp_path / name, times)
    assert _times(path) == pytest.approx(times, abs=1)
    assert files_below(tmp_path) == [name]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert len(_times(_write(path, [0.0, 40.0]))) == 2


def test_a_container_that_cannot_hold_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        VideoWriter(tmp_path / "v.avi", fps=25, size=SIZE)
    assert "Use one of the suffixes .mp4, .m4v, .mov, .mkv" in str(raised.value)
    assert files_below(tmp_path) == []


def test_it_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_text("older")
    writer = VideoWriter(path, fps=25, size=SIZE)
    writer.write(_noise())
    assert path.read_text() == "older" and writer.temporary.exists()
    writer.discard()
    assert path.read_text() == "older" and files_below(tmp_path) == ["v.mp4"]
    with pytest.raises(ZeroDivisionError), VideoWriter(path, fps=25, size=SIZE) as video:
        video.write(np.full((*SIZE, 3), 1 // 0, np.uint8))
    assert path.read_text() == "older" and files_below(tmp_path) == ["v.mp4"]
    _write(path, [0.0])
    assert files_below(tmp_path) == ["v.mp4"] and len(_times(path)) == 1


def test_a_size_that_no_encoder_takes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot write the video .*v\.mp4") as raised:
        VideoWriter(tmp_path / "new" / "v.mp4", fps=25, size=(30_000, 30_000))
    assert "library" in str(raised.value) or "Invalid" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_ffmpeg_without_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_writer, "_ENCODER", "libopenh263")
    with pytest.raises(MissingDependency, match="was built without libopenh263"):
        VideoWriter(tmp_path / "v.mp4", fps=25, size=SIZE)
    assert files_below(tmp_path) == []


_NOISE = """
import numpy as np
from pathlib import Path
from retinart.engine.media.video_writer import VideoWriter
rng = np.random.default_rng(0)
with VideoWriter(Path("v.mp4"), fps=25, size=(96, 128)) as writer:
    for _ in range({frames}):
        writer.write(rng.integers(0, 255, (96, 128, 3), np.uint8))
"""


# the second fails only when what is left in FFmpeg's buffer is written at the end
@pytest.mark.parametrize("frames", [200, 9])
def test_a_limit_on_file_sizes(tmp_path: Path, frames: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _NOISE.format(frames=frames)],
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
        capture_output=True,
        text=True,
    )
    assert "BadInput: cannot write the video v.mp4: File too large. Make room" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path: Path) -> None:
    """A real one, where this process may mount a small one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _NOISE.format(frames=200)],
            cwd=disk,
            capture_output=True,
            text=True,
        )
        assert "cannot write the video v.mp4: No space left on device. Make room" in ran.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


_PAGE = """<!doctype html><video muted preload="auto" src="v.mp4"></video><pre></pre><script>
const video = document.querySelector("video"), out = document.querySelector("pre");
const say = (text) => { out.textContent += text + ";"; };
video.addEventListener("error", () => say("error " + video.error.message));
video.addEventListener("loadeddata", () => {
  say("loaded " + [video.videoWidth, video.videoHeight, video.duration.toFixed(2)]);
  video.currentTime = video.duration - 0.01;
});
video.addEventListener("seeked", () => say("shown at " + video.currentTime.toFixed(2)));
</script>"""


def _in_chromium(browser: Any, folder: Path) -> str:
    (folder / "page.html").write_text(_PAGE)
    page = browser.new_page()
    page.goto((folder / "page.html").as_uri())
    page.locator("pre", has_text=re.compile("shown|error")).wait_for(timeout=60_000)
    return str(page.locator("pre").inner_text())


def test_chromium_plays_it(browser: Any, tmp_path: Path) -> None:
    times: list[float] = [0, 40, 80, 500, 540, 580, 2000, 2040]
    _write(tmp_path / "v.mp4", times)
    assert _in_chromium(browser, tmp_path) == "loaded 128,96,2.08;shown at 2.07;"


def test_chromium_would_say_so_if_it_did_not(browser: Any, tmp_path: Path) -> None:
    """MPEG-4 Part 2, as OpenCV writes it."""
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25, width=128, height=96)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(_noise(), "bgr24")))
        container.mux(stream.encode(None))
    assert _in_chromium(browser, tmp_path).startswith("error ")
