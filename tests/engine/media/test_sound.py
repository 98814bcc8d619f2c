"""Sound that is kept: which packets, at which times, and what cannot be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from retinart.engine.errors import BadInput
from retinart.engine.media.video import VideoReader
from retinart.engine.media.video_writer import VideoWriter
from support import files_below

SIZE = (96, 128)
_RATE = 48_000


def _tone(seconds: float) -> np.ndarray[Any, np.dtype[np.int16]]:
    """(1, samples) int16: silence, but for one tenth of a second at each whole second."""
    t = np.arange(round(seconds * _RATE)) / _RATE
    loud = (t % 1 < 0.1) * np.sin(2 * np.pi * 440 * t)
    return (20_000 * loud).astype(np.int16)[None]


def _film(path: Path, codec: str, *, seconds: int = 4, sound_starts: float = 0.0) -> Path:
    """A video at 25 a second with that tone, in two channels."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        sound = container.add_stream(codec, rate=_RATE, layout="stereo")
        assert isinstance(video, av.VideoStream)
        assert isinstance(sound, av.AudioStream)
        (video.height, video.width), video.pix_fmt = SIZE, "yuv420p"
        if codec == "opus":
            sound.codec_context.options = {"strict": "experimental"}
        for i in range(25 * seconds):
            picture = np.full((*SIZE, 3), 2 * i, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        container.mux(video.encode(None))
        samples = np.repeat(_tone(seconds), 2, axis=0).T.reshape(1, -1)
        for at in range(0, samples.shape[1], 2 * 960):
            piece = np.ascontiguousarray(samples[:, at : at + 2 * 960])
            frame = av.AudioFrame.from_ndarray(piece, "s16", "stereo")
            frame.rate, frame.pts = _RATE, round(sound_starts * _RATE) + at // 2
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def _copy(source: Path, out: Path, start: float = 0.0, end: float = 60.0) -> VideoWriter:
    with (
        VideoReader(source) as video,
        VideoWriter(out, fps=video.rate, size=video.size, sound=source) as writer,
    ):
        for frame in video:
            if frame.time_ms is not None and start <= frame.time_ms / 1000 < end:
                writer.write(frame.image, frame.time_ms)
    return writer


def _loud_from(path: Path) -> tuple[str, list[float]]:
    """The sound's codec, and when it gets loud, in seconds of the container."""
    times, quiet = [], True
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        for frame in container.decode(stream):
            samples = np.abs(frame.to_ndarray().astype(np.float64))
            samples = samples.reshape(-1, frame.samples if samples.shape[0] > 1 else 2)
            level = samples.max() / (1 if samples.max() <= 2 else 32768)
            if level > 0.2 and quiet:
                times.append(frame.time or 0.0)
            quiet = level <= 0.2
        return stream.codec_context.name, times


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [
        ("v.mp4", "aac", "aac"),
        ("v.mkv", "libmp3lame", "mp3float"),
        ("v.mkv", "libopus", "opus"),
        ("v.mkv", "flac", "flac"),
        ("v.mkv", "pcm_s16le", "aac"),
        ("v.avi", "ac3", "aac"),
    ],
)
def test_sound_stays_with_its_pictures(tmp_path: Path, name: str, codec: str, kept: str) -> None:
    """What browsers play is copied, the rest becomes AAC; here the copy begins at 1.48 s."""
    source, out = _film(tmp_path / name, codec), tmp_path / "out.mp4"
    writer = _copy(source, out, 1.48, 3.2)
    assert writer.written == 43
    found, loud = _loud_from(out)
    assert found == kept
    assert loud == pytest.approx([0.52, 1.52], abs=0.1)  # FLAC has 96 ms a packet
    with av.open(str(out)) as container:
        (sound,), (video,) = container.streams.audio, container.streams.video
        assert sound.duration is not None and sound.time_base is not None
        assert float(sound.duration * sound.time_base) == pytest.approx(1.72, abs=0.08)
        assert video.frames == 43
    assert files_below(tmp_path) == sorted([name, "out.mp4"])


def test_sound_is_copied_without_loss(tmp_path: Path) -> None:
    source, out = _film(tmp_path / "v.mp4", "aac"), tmp_path / "out.mp4"
    _copy(source, out)

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(p) for p in container.demux(audio=0) if p.size]

    mine = packets(out)
    # the first packet begins before time 0: it is the encoder's priming
    assert len(mine) > 180 and mine == packets(source)[1 : len(mine) + 1]


def test_sound_that_begins_later(tmp_path: Path) -> None:
    source, out = _film(tmp_path / "v.mkv", "flac", sound_starts=0.5), tmp_path / "out.mp4"
    _copy(source, out)
    assert _loud_from(out)[1] == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=0.11)


def test_a_video_without_sound(tmp_path: Path) -> None:
    source = tmp_path / "v.mp4"
    with VideoWriter(source, fps=25, size=SIZE) as writer:
        writer.write(np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(BadInput) as raised:
        VideoWriter(tmp_path / "out.mp4", fps=25, size=SIZE, sound=source)
    assert str(raised.value) == (
        f"cannot keep the sound of {source}: it has none. Leave out `audio`."
    )
    with pytest.raises(BadInput, match=r"cannot keep the sound of .*none\.mp4: No such file"):
        VideoWriter(tmp_path / "out.mp4", fps=25, size=SIZE, sound=tmp_path / "none.mp4")
    assert files_below(tmp_path) == ["v.mp4"]


def test_damaged_sound_that_is_encoded_anew_is_left_out(tmp_path: Path) -> None:
    """What comes behind it is still at its place, and the pictures are whole."""
    source, out = _film(tmp_path / "v.avi", "ac3"), tmp_path / "out.mp4"
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(audio=0) if p.pos is not None and p.size]
        damaged = [(p.pos, p.size) for p in packets if p.pts and 1.3 < p.pts * p.time_base < 2.6]
    for start, size in damaged:
        assert start is not None
        data[start : start + size] = b"\x0b" * size
    source.write_bytes(data)
    assert _copy(source, out).written == 100
    assert _loud_from(out)[1] == pytest.approx([0, 1, 3], abs=0.06)


def test_sound_of_a_file_that_is_cut(tmp_path: Path) -> None:
    source, out = _film(tmp_path / "v.mkv", "pcm_s16le"), tmp_path / "out.mp4"
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert _copy(source, out).written > 10
    assert files_below(tmp_path) == ["out.mp4", "v.mkv"]
