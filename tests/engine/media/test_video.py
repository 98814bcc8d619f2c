"""Video files: rates and numbers of frames that containers misstate, damage, and odd names."""

from __future__ import annotations

import gc
import http.server
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from retinart.engine.errors import BadInput
from retinart.engine.media import video
from retinart.engine.media.connections import NetworkCapture
from retinart.engine.media.images import Image
from retinart.engine.media.settings import Position, Selection
from retinart.engine.media.video import VideoReader

SIZE = (96, 128)
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND  # the default rounds down


def _write(path: Path, *, frames: int = 50, fps: float = 25, codec: str = "mp4v") -> Path:
    """A video by OpenCV whose n-th frame is 5 n bright."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, SIZE[::-1])
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((*SIZE, 3), 5 * i, np.uint8))
    writer.release()
    return path


def _encode(
    path: Path,
    pictures: list[Image],
    *,
    rotation: float = 0,
    mirror: str = "",
    index_first: bool = True,
    **options: str,
) -> Path:
    """An H.264 video of pictures, 25 a second, that is to be turned and mirrored for showing."""
    flags = {"movflags": "faststart"} if path.suffix == ".mp4" and index_first else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", **options})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if rotation or mirror:
            horizontal, vertical = mirror == "horizontal", mirror == "vertical"
            stream.set_display_rotation(rotation, hflip=horizontal, vflip=vertical)
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, "bgr24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", interpolation=_EXACT)))
        container.mux(stream.encode(None))
    return path


def _grey(levels: Iterator[int] | range) -> list[Image]:
    return [np.full((*SIZE, 3), level, np.uint8) for level in levels]


def _read(path: Path | str, **more: Any) -> tuple[list[int], VideoReader]:
    """A video's frames by their brightness, and its reader."""
    with VideoReader(path, **more) as video:
        return [round(float(frame.image.mean())) for frame in video], video


@pytest.mark.parametrize("name", ["v.mp4", "v.avi", "v.mkv", "v.ts", "v.flv"])
def test_frames_come_in_order_with_their_times(tmp_path: Path, name: str) -> None:
    with VideoReader(_encode(tmp_path / name, _grey(range(0, 250, 5)))) as video:
        assert (video.rate, video.size) == (25, SIZE)
        assert video.counts.announced == pytest.approx(50, abs=2)  # FLV counts the encoder's delay
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(50))
    np.testing.assert_allclose([f.time_ms or 0.0 for f in frames], np.arange(50) * 40, atol=0.6)
    np.testing.assert_allclose([f.image.mean() for f in frames], np.arange(50) * 5, atol=2)
    counts = video.counts
    assert (counts.read, counts.taken, counts.announced, counts.ended) == (50, 50, 50, "end")


def test_interlaced_video_in_a_transport_stream_has_its_frames_rate(tmp_path: Path) -> None:
    """Its header may name the rate of fields, which are twice as many."""
    path = _encode(tmp_path / "v.ts", _grey(range(0, 250, 5)), flags="+ilme+ildct")
    with VideoReader(path) as video:
        assert (video.rate, video.counts.announced) == (25, 50)


def test_a_guess_of_the_number_of_frames_gives_way_to_the_frames(tmp_path: Path) -> None:
    with VideoReader(_write(tmp_path / "v.mpg", codec="MPG2")) as video:
        assert video.counts.announced != 50
        assert sum(1 for _ in video) == video.counts.announced == 50
        assert video.counts.ended == "end"


def test_a_guess_that_the_frames_do_not_reach_stands(tmp_path: Path) -> None:
    """Matroska's header holds the length: half of the file ends early."""
    path = _write(tmp_path / "v.mkv", codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoReader(path) as video:
        assert 5 < sum(1 for _ in video) < 40
        assert (video.counts.announced, video.counts.ended) == (50, "early")


def test_a_video_that_ends_early(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, *SIZE, 3), np.uint8)
    path = _encode(tmp_path / "v.mp4", list(noise))
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    levels, video = _read(path)
    assert 10 < len(levels) < 50
    assert (video.counts.announced, video.counts.ended) == (50, "early")


def _packet_positions(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.pos is not None and p.size]


def test_damaged_frames_are_counted_and_passed_over(tmp_path: Path) -> None:
    """The frames behind them come, with their own indices and times."""
    path = _write(tmp_path / "v.avi", codec="MJPG")  # each frame stands for itself
    data = bytearray(path.read_bytes())
    for start, size in _packet_positions(path)[20:22]:
        data[start : start + size] = bytes(size)
    path.write_bytes(data)
    with VideoReader(path) as video:
        frames = list(video)
    counts = video.counts
    assert (counts.read, counts.broken, counts.taken, counts.ended) == (50, 2, 48, "end")
    assert [f.index for f in frames] == [*range(20), *range(22, 50)]
    assert frames[20].time_ms == pytest.approx(880, abs=41)
    assert round(float(frames[20].image.mean())) == pytest.approx(110, abs=2)


def test_a_first_frame_that_is_damaged(tmp_path: Path) -> None:
    path = _write(tmp_path / "v.avi", codec="MJPG")
    data = bytearray(path.read_bytes())
    start, size = _packet_positions(path)[0]
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    with VideoReader(path) as video:
        assert [frame.index for frame in video] == list(range(1, 50))
    assert (video.counts.broken, video.counts.ended) == (1, "end")


@pytest.mark.parametrize("bf", ["0", "2"])
def test_a_video_that_was_trimmed_without_encoding_it_anew(tmp_path: Path, bf: str) -> None:
    """Its first frames are there for decoding only: no player shows them, and none are missing."""
    whole = _encode(tmp_path / "whole.mp4", _grey(range(0, 250, 5)), g="50", bf=bf)
    path = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            assert packet.time_base is not None
            shift = round(Fraction(15, 25) / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            out.mux(packet)
    levels, video = _read(path)
    assert levels == pytest.approx(list(range(75, 250, 5)), abs=2)
    assert (video.counts.announced, video.counts.ended) == (35, "end")


def _four_colours() -> Image:
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[:48, :64] = (255, 0, 0)
    picture[:48, 64:] = (0, 255, 0)
    picture[48:, :64] = (0, 0, 255)
    return picture


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
@pytest.mark.parametrize("mirror", ["horizontal", "vertical"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_is_mirrored_as_it_says(
    tmp_path: Path, served: str, rotation: float, turns: int, mirror: str, suffix: str
) -> None:
    """From a file, from an address that is read as one, and from a live address."""
    picture = _four_colours()
    path = _encode(tmp_path / f"v{suffix}", [picture] * 9, rotation=rotation, mirror=mirror)
    expected = np.rot90(picture, turns)
    expected = expected[:, ::-1] if mirror == "horizontal" else expected[::-1]
    (tmp_path / "live").write_bytes(path.read_bytes())
    with VideoReader(path) as video, VideoReader(f"{served}/{path.name}") as remote:
        images = [next(iter(video)).image, next(iter(remote)).image]
        assert video.size == remote.size == expected.shape[:2]
    live = NetworkCapture(f"{served}/live", 10)
    assert live.grab()
    images.append(np.asarray(live.retrieve()[1], np.uint8))
    live.release()
    for image in images:
        assert image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).mean() < 5


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_a_video_is_turned_upright(
    tmp_path: Path, served: str, rotation: float, turns: int
) -> None:
    """As phones write it: the sensor's picture, and how it is to be turned."""
    picture = _four_colours()
    path = _encode(tmp_path / "v.mp4", [picture] * 3, rotation=rotation)
    with VideoReader(path) as video:
        (first, *_) = video
        assert video.size == first.image.shape[:2]
    expected = np.rot90(picture, turns)
    assert first.image.shape == expected.shape
    assert np.abs(first.image.astype(int) - expected).mean() < 5
    by_opencv = cv2.VideoCapture(str(path)).read()[1]
    np.testing.assert_array_equal(first.image, by_opencv)
    (tmp_path / "live").write_bytes(path.read_bytes())
    live = NetworkCapture(f"{served}/live", 10)
    assert live.grab()
    np.testing.assert_array_equal(live.retrieve()[1], first.image)
    live.release()


def test_a_selection(tmp_path: Path) -> None:
    path = _encode(tmp_path / "v.mp4", _grey(range(0, 250, 5)))
    seconds = Selection(start=Position(seconds=0.4), end=Position(seconds=0.8), every=3)
    frames = Selection(start=Position(frames=10), end=Position(frames=20), every=3)
    for selection in (seconds, frames):
        levels, video = _read(path, selection=selection)
        assert levels == pytest.approx([50, 65, 80, 95], abs=2)
        counts = video.counts
        assert (counts.read, counts.skipped, counts.taken, counts.ended) == (20, 16, 4, "end")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mp4", "ffconcat version 1.0\nfile pipe.ts\n"),
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\npipe.ts\n#EXT-X-ENDLIST\n"),
    ],
)
def test_a_list_of_other_files_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """FFmpeg would open them, and wait for ever where one is a named pipe."""
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=r"it is a list of other files, or damaged\. Give the files"):
        VideoReader(tmp_path / name)


def test_frames_go_at_once_and_not_when_python_collects_cycles(tmp_path: Path) -> None:
    """A job on a camera held up to 200 of them: 70 MB of frames of 768x432 pixels."""

    def held() -> int:
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    gc.collect()
    before = held()
    gc.disable()
    try:
        with VideoReader(_write(tmp_path / "clip.mp4", frames=8)) as reader:
            read = len(list(reader))
    finally:
        gc.enable()
    assert read == 8 and held() == before


def test_closing_early(tmp_path: Path) -> None:
    with VideoReader(_write(tmp_path / "v.mp4")) as video:
        assert video.take() is not None
    assert video.counts.ended == "stopped" and video.ended and video.take() is None


@pytest.mark.parametrize("name", ["a:b.mp4", "concat:x.mp4", "%d.mp4", "a b&c.mp4"])
def test_names_that_mean_something_else_to_ffmpeg(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(_write(tmp_path / "v.mp4", frames=3).read_bytes())
    assert len(_read(path)[0]) == 3


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    try:
        path.write_bytes(_write(tmp_path / "v.mp4", frames=3).read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert len(_read(path)[0]) == 3


def test_pictures_equal_opencvs_to_the_bit(tmp_path: Path) -> None:
    """This includes the colours of a file that names its matrix."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (6, 8, 3), np.uint8)
    picture = np.asarray(cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    for matrix in ("bt709", "smpte170m"):
        path = _encode(tmp_path / "v.mp4", [picture], colorspace=matrix)
        with VideoReader(path) as video:
            ours = next(iter(video)).image
        np.testing.assert_array_equal(ours, cv2.VideoCapture(str(path)).read()[1])


class _Folder(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A reader that has seen enough hangs up; the base class would print a traceback."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server that gives the files of `tmp_path`, without ranges."""
    handler = partial(_Folder, directory=str(tmp_path))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_of_an_address(tmp_path: Path, served: str) -> None:
    path = _encode(tmp_path / "v.mp4", _grey(range(0, 250, 5)))
    levels, video = _read(f"{served}/{path.name}".replace("://", "://me:secret@"))
    assert len(levels) == 50 and video.files == () and "secret" not in video.name


def test_an_index_at_the_end_that_a_server_does_not_send(tmp_path: Path, served: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (9, *SIZE, 3), np.uint8)
    path = _encode(tmp_path / "v.mp4", list(noise), index_first=False)
    assert len(_read(path)[0]) == 9
    with pytest.raises(BadInput) as raised:
        VideoReader(f"{served}/v.mp4")
    why = "its index stands at its end, and the server does not send parts of a file (HTTP ranges)"
    assert str(raised.value).startswith(f"cannot decode the video {served}/v.mp4: {why}. Download")
    path.rename(tmp_path / "live")
    live = NetworkCapture(f"{served}/live", 10)
    assert live.isOpened() and not live.grab() and live.why == why
    live.release()
    refused = NetworkCapture("http://127.0.0.1:9/live", 10)
    assert not refused.isOpened() and refused.why == "Connection refused"


def test_an_address_without_a_video_says_why(served: str) -> None:
    with pytest.raises(BadInput) as raised:
        VideoReader(f"{served}/none.mp4")
    assert "404" in str(raised.value)
    closed = "http://127.0.0.1:9/none.mp4"
    with pytest.raises(BadInput) as raised:
        VideoReader(closed)
    assert str(raised.value).startswith(f"cannot decode the video {closed}: Connection refused.")


def test_a_hole_of_many_gigabytes_is_not_searched_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(b"RIFF\xff\xff\xff\x7fAVI LIST")
    os.truncate(path, 1 << 38)
    monkeypatch.setattr(video, "_FILE_SECONDS", 0.2)
    with pytest.raises(BadInput, match=r"a\.avi: it is empty, damaged"):
        VideoReader(path)
