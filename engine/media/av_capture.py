"""Network streams through PyAV, where it is installed: FFmpeg without OpenCV in between.

OpenCV 4.14 scales the frames of a stream that changes its resolution to the first frame's size, and
does not say so; here each frame has its own. Everything else works alike with either.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_OPTIONS = {"rtsp_transport": "tcp"}  # as OpenCV has it: UDP loses packets in silence


class AVCapture:
    """An address as a capture; see `live.Capture`.

    Args:
        address: what FFmpeg opens.
        timeout: seconds to wait for a connection, and for each frame.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self._av = importlib.import_module("av")
        self._frame: Any = None
        self._frames: Iterator[Any] = iter(())
        self._container: Any = None
        try:
            self._container = self._av.open(
                address, options=_OPTIONS, timeout=(timeout, timeout), metadata_errors="replace"
            )
            self._frames = self._decoded()
        except (self._av.FFmpegError, OSError):
            self.release()

    def isOpened(self) -> bool:
        """Whether the connection was made."""
        return self._container is not None

    def grab(self) -> bool:
        """Wait for the next frame; False at one that is broken, and at the end."""
        self._frame = next(self._frames, None)
        return self._frame is not None

    def retrieve(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        """That frame, (H, W, 3) uint8 BGR of its own size."""
        if self._frame is None:
            return False, None
        return True, np.asarray(self._frame.to_ndarray(format="bgr24"), np.uint8)

    def release(self) -> None:
        """Close the connection."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _decoded(self) -> Iterator[Any]:
        """Frames; None for a packet that cannot be decoded."""
        videos = self._container.streams.video
        if not videos:
            return
        context = videos[0].codec_context
        context.thread_type = "SLICE"  # threads by frame would hold back a frame each
        context.flags |= self._av.codec.context.Flags.low_delay
        try:
            for packet in self._container.demux(videos[0]):
                try:
                    yield from packet.decode()
                except self._av.InvalidDataError:
                    yield None
        except (self._av.FFmpegError, OSError):  # a time-out, or the connection broke
            return


def installed() -> bool:
    """Whether PyAV can be used."""
    try:
        importlib.import_module("av")
    except ImportError:
        return False
    return True
