"""Connections to live sources: network streams through PyAV, webcams through OpenCV."""

from __future__ import annotations

from typing import Any, Protocol

import av
import cv2
from av.codec.context import Flags
from av.container import InputContainer

from retinart.engine.media import http_ranges
from retinart.engine.media.decoding import Frames, Pictures
from retinart.engine.media.images import Image

_OPTIONS = {"rtsp_transport": "tcp"}  # over UDP, packets get lost without a sign


class Capture(Protocol):
    """What a live source needs of a connection; `cv2.VideoCapture` has it."""

    def isOpened(self) -> bool:
        """Whether the connection was made."""

    def grab(self) -> bool:
        """Wait for the next frame; False for a damaged one, and at the end."""

    def retrieve(self) -> tuple[bool, Any]:
        """Whether that frame can be decoded, and (H, W, 3) uint8 BGR."""

    def release(self) -> None:
        """Close the connection."""


def connect(address: str | int, timeout: float) -> Capture:
    """A connection, made or not.

    Args:
        address: a network address, a webcam's number, or the path of its device. Webcams stay with
            OpenCV, which numbers them on every system; FFmpeg needs the names of their devices.
        timeout: seconds to wait for an address, and for each of its frames.
    """
    if isinstance(address, str) and "://" in address:
        return NetworkCapture(address, timeout)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # a failure is told by us
    try:
        return cv2.VideoCapture(address)
    finally:
        cv2.utils.logging.setLogLevel(level)


class NetworkCapture:
    """A network stream as a `Capture`; each frame has the size that it was sent with.

    Attributes:
        why: why it cannot be opened or gives no frame, where that is known.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.why, self._address, self._timeout = "", address, timeout
        self._container: InputContainer | None = None
        self._frame: av.VideoFrame | None = None
        self._frames: Frames | None = None
        self._picture = Pictures()
        try:
            container = av.open(
                address,
                options=_OPTIONS,
                timeout=(timeout, timeout),
                metadata_errors="replace",
            )
        except (av.FFmpegError, OSError) as error:
            self.why = error.strerror or ""
            return
        self._container = container
        stream = container.streams.best("video")
        if isinstance(stream, av.VideoStream):
            stream.thread_type = (
                "SLICE"  # each thread that decodes a frame of its own holds it back
            )
            stream.codec_context.flags |= Flags.low_delay
            self._frames = Frames(container, stream)

    def isOpened(self) -> bool:
        """See `Capture`."""
        return self._container is not None

    def grab(self) -> bool:
        """See `Capture`."""
        self._frame = None if self._frames is None else next(self._frames, None)
        if self._frame is None and self._container is not None and not self.why:
            self.why = self._why_none(self._container)
        return self._frame is not None

    def _why_none(self, container: InputContainer) -> str:
        if self._frames is None:
            return "it holds no video"
        format, timeout = container.format.name, self._timeout
        if not self._frames.packets and http_ranges.is_out_of_reach(self._address, format, timeout):
            return http_ranges.WHY
        return ""

    def retrieve(self) -> tuple[bool, Image | None]:
        """See `Capture`."""
        image = None if self._frame is None else self._picture(self._frame)
        return image is not None, image

    def release(self) -> None:
        """See `Capture`."""
        if self._container is not None:
            self._container.close()
            self._container = None
