"""Video files: frames in, frames out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from retinart.engine.errors import BadInput
from retinart.engine.files import atomic_path
from retinart.engine.images import Image

# containers that hold the number of their frames; OpenCV guesses that of others
_COUNTED = frozenset((".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi"))
VIDEO_SUFFIXES = _COUNTED | frozenset(
    (
        ".mkv",
        ".webm",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".vob",
        ".wmv",
        ".asf",
        ".flv",
        ".ogv",
    )
)
_LOOK = 16  # frames whose times are looked at for the frame rate


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
        fps: frame rate: the nominal one, unless the times of the first frames contradict it in a
            container that holds no number of frames (H.264 in MPEG-TS may name the rate of fields).
        counted: whether the container holds the number of its frames.
        announced: that number; 0 when it is not known. Where it is a guess from the length, it
            becomes `read` at the end, if the frames reach over that length.
        size: (height, width) in pixels.
        read: frames decoded so far.

    Raises:
        BadInput: the file is missing, or OpenCV cannot decode a first frame of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise BadInput(f"there is no video at {path}", fix="Check the path")
        self._capture = cv2.VideoCapture(opencv_name(path))
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
        self.announced = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.counted = path.suffix.lower() in _COUNTED
        measured = None if self.counted else _measured_fps(path)
        if measured is not None and fps > 0 and not 0.8 < measured / fps < 1.25:
            self.announced = round(self.announced * measured / fps)
            fps = measured
        self.fps = fps if 0 < fps < 1000 else 25.0
        self.read = 0

    def __iter__(self) -> Iterator[Frame]:
        last_ms = 0.0
        while self._next is not None:
            time_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            last_ms = max(last_ms, time_ms)
            frame = Frame(index=self.read, time_ms=time_ms, image=self._next)
            self.read += 1
            yield frame
            ok, image = self._capture.read()
            self._next = np.asarray(image, np.uint8) if ok else None
        # the last frame begins a frame's time before the end; two more for the guess
        if not self.counted and last_ms * self.fps / 1000 >= self.announced - 3:
            self.announced = self.read

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


def opencv_name(path: Path) -> str:
    """A path for OpenCV's video functions, which crash on what is not UTF-8.

    Raises:
        BadInput: its bytes are not UTF-8.
    """
    try:
        return str(path).encode().decode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise BadInput(
            f"OpenCV cannot open the video {shown}",
            why="its path is not UTF-8",
            fix="Rename it, or the folder that it is in",
        ) from error


def _measured_fps(path: Path) -> float | None:
    """Frame rate by the times of the first frames; None when they do not say."""
    capture = cv2.VideoCapture(opencv_name(path))
    try:
        times = [capture.get(cv2.CAP_PROP_POS_MSEC) for _ in range(_LOOK) if capture.grab()]
    finally:
        capture.release()
    steps = np.diff(np.unique(times))  # without the zeros that stand for "unknown"
    return 1000 / float(np.median(steps)) if len(steps) > 2 else None


class VideoWriter:
    """An MPEG-4 file of frames of one size, which appears under its name when it is whole.

        with VideoWriter(path, fps=25, size=(480, 640)) as video:
            video.write(frame)

    OpenCV's encoder never says that a write failed (a full disk, a limit on file sizes), so the
    file is opened again before it gets its name. After an error there is no file.

    Args:
        path: where to write; the suffix picks the container.
        fps: frame rate.
        size: (height, width) in pixels.

    Raises:
        BadInput: the encoder cannot write there, or what it wrote cannot be read back.
    """

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int]) -> None:
        self.path, self._size, self.written = path, size, 0
        opencv_name(path)  # an error names this, not the temporary name
        with ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(path))
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            name = opencv_name(self._temporary)
            self._writer = cv2.VideoWriter(name, fourcc, fps, (size[1], size[0]))
            if not self._writer.isOpened():
                raise BadInput(
                    f"cannot write the video {path}",
                    why="OpenCV has no mp4v encoder, or refuses the suffix, the size or the rate",
                    fix="Use the suffix .mp4 and the opencv-python-headless wheel",
                )
            self._file = stack.pop_all()

    def write(self, image: Image) -> None:
        """Add a frame; one of another size is resized to the video's."""
        if image.shape[:2] != self._size:
            image = np.asarray(cv2.resize(image, self._size[::-1]), np.uint8)
        self._writer.write(image)
        self.written += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.release()  # ends the file, so that players read it
        if error is not None:
            self._file.__exit__(kind, error, trace)
            return
        with self._file:
            self._check()

    def _check(self) -> None:
        try:
            with VideoReader(self._temporary) as video:
                whole = video.announced if video.counted else sum(1 for _ in video)
        except BadInput:
            whole = 0
        if whole != self.written:
            raise BadInput(
                f"the video {self.path} could not be written",
                why=f"of {self.written} frames {whole} can be read back",
                fix="See that the disk is not full and that no limit on file sizes is in force",
            )
