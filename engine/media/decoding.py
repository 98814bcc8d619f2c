"""What files and network streams share: packets into frames, frames into pictures."""

from __future__ import annotations

from collections.abc import Iterator

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from retinart.engine.media.images import Image

# by quarter turns counter-clockwise, as `VideoFrame.rotation` counts them in degrees
_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


class Frames:
    """The frames of a stream in order of time, and None for each packet that is damaged.

    They end with the stream, or where reading fails: a time-out, a connection that broke.

    Attributes:
        hidden: packets so far that the file keeps for decoding alone, and whose frames no player
            shows (a video that was trimmed without encoding it anew).
    """

    def __init__(self, container: InputContainer, stream: av.VideoStream) -> None:
        self.hidden = 0
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
        """(H, W, 3) uint8 BGR, turned upright as the file says; None of a damaged frame."""
        try:
            # one thread: more would take cores from inference, and gain nothing at these sizes
            bgr = self._converter.reformat(frame, format="bgr24", threads=1)
        except (av.FFmpegError, ValueError):
            return None
        image = np.asarray(bgr.to_ndarray(), np.uint8)
        turn = _TURNS.get(round(frame.rotation / 90) % 4)
        return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)
