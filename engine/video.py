"""Video files: frames in, frames out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from retinart.engine.errors import BadInput
from retinart.engine.images import Image

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")
)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A decoded frame.

    Attributes:
        index: position in the file, from 0.
        time_ms: presentation time in the video.
        image: (H, W, 3) uint8 BGR.
    """

    index: int
    time_ms: float
    image: Image


class VideoReader:
    """The frames of a video file, once, in order.

    Attributes:
        fps: nominal frame rate.
        announced: number of frames that the container announces; 0 when it does not say.
        size: (height, width) in pixels.
        read: frames decoded so far.

    Raises:
        BadInput: the file is missing, or OpenCV cannot decode a first frame of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise BadInput(f"there is no video at {path}", fix="Check the path")
        self._capture = cv2.VideoCapture(str(path))
        ok, first = self._capture.read() if self._capture.isOpened() else (False, None)
        if not ok or first is None:
            self._capture.release()
            raise BadInput(
                f"cannot decode the video {path}",
                why="it is empty, damaged, or of a format that OpenCV's FFmpeg does not know",
            )
        self._next: Image | None = np.asarray(first, np.uint8)
        self.size = (self._next.shape[0], self._next.shape[1])
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 25.0
        self.announced = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.read = 0

    @property
    def ended_early(self) -> bool:
        """Whether fewer frames could be decoded than the container announces."""
        return self._next is None and self.read < self.announced

    def __iter__(self) -> Iterator[Frame]:
        while self._next is not None:
            time_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            frame = Frame(index=self.read, time_ms=time_ms, image=self._next)
            self.read += 1
            yield frame
            ok, image = self._capture.read()
            self._next = np.asarray(image, np.uint8) if ok else None

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class VideoWriter:
    """An MPEG-4 file of frames of one size.

    Args:
        path: where to write; the suffix picks the container.
        fps: frame rate.
        size: (height, width) in pixels.

    Raises:
        BadInput: the encoder cannot write there.
    """

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int]) -> None:
        self.path, self._size = path, size
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), fourcc, fps, (size[1], size[0]))
        if not self._writer.isOpened():
            raise BadInput(f"cannot write a video to {path}", why="OpenCV's encoder refused it")

    def write(self, image: Image) -> None:
        """Add a frame; one of another size is resized to the video's."""
        if image.shape[:2] != self._size:
            image = np.asarray(cv2.resize(image, self._size[::-1]), np.uint8)
        self._writer.write(image)

    def close(self) -> None:
        """Finish the file, so that players read it."""
        self._writer.release()
