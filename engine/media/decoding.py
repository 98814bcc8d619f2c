"""What files and network streams share: packets into frames, frames into pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter

from retinart.engine.media.images import Image, upright

_MATRIX = struct.Struct("9i")


class Frames:
    """The frames of a stream in order of time, and None for each packet that is damaged.

    They end with the stream, or where reading fails: a time-out, a connection that broke.

    Attributes:
        hidden: packets so far that the file keeps for decoding alone, and whose frames no player
            shows (a video that was trimmed without encoding it anew).
        packets: read so far, with data in them.
    """

    def __init__(self, container: InputContainer, stream: av.VideoStream) -> None:
        self.hidden = self.packets = 0
        self._frames = self._decoded(container, stream)

    def __iter__(self) -> Iterator[av.VideoFrame | None]:
        return self._frames

    def __next__(self) -> av.VideoFrame | None:
        return next(self._frames)

    def _decoded(
        self, container: InputContainer, stream: av.VideoStream
    ) -> Iterator[av.VideoFrame | None]:
        try:
            for packet in container.demux(stream):
                self.hidden += packet.is_discard
                self.packets += packet.size > 0
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    yield None
                else:
                    yield from frames
        except (av.FFmpegError, OSError):
            return


class Pictures:
    """Makes pictures of frames; keeps FFmpeg's converter from one frame to the next."""

    def __init__(self) -> None:
        self._converter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Image | None:
        """(H, W, 3) uint8 BGR, turned and mirrored as the file says; None of a damaged frame."""
        try:
            # one thread: more would take cores from inference, and gain nothing at these sizes
            bgr = self._converter.reformat(frame, format="bgr24", threads=1)
        except (av.FFmpegError, ValueError):
            return None
        return upright(np.asarray(bgr.to_ndarray(), np.uint8), _orientation(frame))


def _orientation(frame: av.VideoFrame) -> int:
    """How a frame is to be turned and mirrored, as EXIF counts it.

    FFmpeg's matrix (a b u, c d v, x y w) sends a pixel (X, Y) to (a X + c Y, b X + d Y).
    """
    try:
        # `frame.side_data` would tie the frame to itself, so that its memory stays until Python
        # collects cycles: 70 MB of small frames, since Python does not count their size
        data = cast(Any, SideDataContainer)(frame).get("DISPLAYMATRIX")
    except ValueError:  # another entry is of a kind that PyAV does not know
        turns = round(frame.rotation / 90) % 4  # counter-clockwise; mirroring is not in it
        return (1, 8, 3, 6)[turns]
    if data is None or data.buffer_size < _MATRIX.size:
        return 1
    a, b, _, c, d, *_ = _MATRIX.unpack_from(bytes(data))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(0, 0): 1, (1, 0): 2, (1, 1): 3, (0, 1): 4}[a < 0, d < 0]
    return {(0, 0): 5, (1, 0): 6, (1, 1): 7, (0, 1): 8}[c < 0, b < 0]
