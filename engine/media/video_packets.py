"""Encoded frames that wait in memory, and videos made of them without encoding them again."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType

from retinart.engine.media.images import Image
from retinart.engine.media.video import file_url
from retinart.engine.media.video_writer import OPTIONS, TICKS, ToYuv, VideoFile, add_h264, explained

_OPTIONS = {**OPTIONS, "tune": "zerolatency"}  # each frame's packet comes at once
_KEY_SECONDS = 1.0
_MARK = "clip by retinart"  # a video's comment


@dataclass(frozen=True, kw_only=True)
class Packet:
    """An encoded frame.

    Attributes:
        data: its bytes.
        seconds: when it is shown, in the source's time.
        key: whether a video can begin with it.
    """

    data: bytes = field(repr=False)
    seconds: float
    key: bool


class PacketEncoder:
    """Encodes frames of one size as H.264, with a key frame at least once a second.

    Args:
        fps: nominal frame rate.
        size: (height, width) in pixels; a frame of another size is fitted in.

    Raises:
        MissingDependency: this FFmpeg has no H.264 encoder.
    """

    def __init__(self, *, fps: float, size: tuple[int, int]) -> None:
        self._convert = ToYuv(size)
        self._last, self._key = -1, -TICKS
        # an encoder needs a container, which gets its header and nothing else
        self._container = av.open(io.BytesIO(), "w", "nut")
        self.stream = add_h264(self._container, fps=fps, size=size, options=_OPTIONS)
        self._container.start_encoding()

    def __call__(self, image: Image, seconds: float) -> list[Packet]:
        """The packets of the next frame, as a rule one.

        Args:
            image: (H, W, 3) uint8 BGR.
            seconds: its time; one that runs backwards is shown at once.
        """
        frame = self._convert(image)
        self._last = max(self._last + 1, round(seconds * TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, TICKS)
        if self._last - self._key >= _KEY_SECONDS * TICKS:
            frame.pict_type, self._key = PictureType.I, self._last
        return [
            Packet(data=bytes(p), seconds=(p.pts or 0) / TICKS, key=p.is_keyframe)
            for p in self.stream.encode(frame)
        ]

    def close(self) -> None:
        """Free the encoder."""
        self._container.close()


class PacketWriter:
    """A video of packets of one encoder, which gets its name when it is whole.

    Args:
        path: where to write, with the suffix .mp4.
        encoder: that the packets are of.

    Attributes:
        path: where to write.
        temporary: where the file is until it is whole.
        written: frames so far.
        bytes: of them.
        commit, discard: see `VideoFile`.

    Raises:
        BadInput: the file cannot be written; the reason is FFmpeg's.
    """

    def __init__(self, path: Path, encoder: PacketEncoder) -> None:
        self.path, self.written, self.bytes = path, 0, 0
        self._first = 0
        self._file = VideoFile(path, "mp4")
        self.temporary, self._container = self._file.temporary, self._file.container
        self.commit, self.discard = self._file.commit, self._file.discard
        try:
            with explained(path):
                self._stream = self._container.add_stream_from_template(encoder.stream)
                self._container.metadata["comment"] = _MARK
                self._container.start_encoding()
        except BaseException:
            self.discard()
            raise

    def write(self, packet: Packet) -> None:
        """Add a packet; the first is a key frame, whose time becomes 0.

        Raises:
            BadInput: it cannot be written; the reason is FFmpeg's.
        """
        ticks = round(packet.seconds * TICKS)
        if not self.written:
            self._first = ticks
        given = av.Packet(packet.data)
        given.stream, given.time_base = self._stream, Fraction(1, TICKS)
        given.pts = given.dts = ticks - self._first
        given.is_keyframe = packet.key
        with explained(self.path):
            self._container.mux(given)
        self.written += 1
        self.bytes += len(packet.data)


def is_clip(path: Path) -> bool:
    """Whether a file is a video that `PacketWriter` wrote."""
    try:
        with av.open(file_url(path)) as container:
            return container.metadata.get("comment") == _MARK
    except (av.FFmpegError, OSError):
        return False
