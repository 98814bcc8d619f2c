"""Video files: frames in, frames out."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from retinart.engine.common.files import atomic_path
from retinart.engine.errors import BadInput
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image
from retinart.engine.media.mp4 import set_times

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


class VideoReader:
    """The frames of a video file, once, in order.

    Args:
        path: the file, or an address that FFmpeg reads as one.
        place: see `Frame`.
        timeout: seconds to wait for an address.

    Attributes:
        fps: frame rate: the nominal one, unless the times of the first frames contradict it in a
            container that holds no number of frames (H.264 in MPEG-TS may name the rate of fields).
        counted: whether the container holds the number of its frames.
        announced: that number; 0 when it is not known. Where it is a guess from the length, it
            becomes `read` at the end, if the frames reach over that length.
        size: (height, width) of the first frame, in pixels.
        read: frames decoded so far, with those that were not chosen.
        broken: of these, frames that could not be made a picture.

    Raises:
        BadInput: the file is missing, or OpenCV cannot decode a first frame of it.
    """

    def __init__(self, path: Path | str, *, place: int = 0, timeout: float = 10.0) -> None:
        self.path, self._place = path, place
        self.name = str(path) if isinstance(path, Path) else shown_address(path)
        if isinstance(path, Path) and not path.is_file():
            raise BadInput(f"there is no video at {path}", fix="Check the path")
        name = opencv_name(path) if isinstance(path, Path) else path
        self._capture = open_capture(name, timeout)
        ok, first = self._capture.read() if self._capture.isOpened() else (False, None)
        if not ok or first is None:
            self._capture.release()
            raise BadInput(
                f"cannot decode the video {self.name}",
                why="it is empty, damaged, or of a format that OpenCV's FFmpeg does not know",
                fix="Play it with ffplay to see which, and convert it with ffmpeg -i IN OUT.mp4",
            )
        self._first: Image | None = np.asarray(first, np.uint8)
        self.size = (self._first.shape[0], self._first.shape[1])
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.announced = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.counted = Path(path).suffix.lower() in _COUNTED
        measured = None if self.counted or isinstance(path, str) else _measured_fps(path)
        if measured is not None and fps > 0 and not 0.8 < measured / fps < 1.25:
            self.announced = round(self.announced * measured / fps)
            fps = measured
        self.fps = fps if 0 < fps < 1000 else 25.0
        self.read = self.broken = 0

    def __iter__(self) -> Iterator[Frame]:
        return self.frames(lambda index, time_ms: "take")

    def frames(self, choose: Callable[[int, float], str]) -> Iterator[Frame]:
        """The frames that are chosen by index and time in ms: "take", "skip" or "end".

        Those that are skipped are decoded, as later ones build on them, but not made a picture.
        """
        last_ms = 0.0
        while self._first is not None or self._capture.grab():
            time_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            last_ms = max(last_ms, time_ms)
            choice = choose(self.read, time_ms)
            if choice == "end":
                return
            self.read += 1
            if choice == "take" and (image := self._picture()) is not None:
                yield Frame(
                    source=self.name,
                    place=self._place,
                    index=self.read - 1,
                    time_ms=time_ms,
                    image=image,
                )
            self._first = None
        # the last frame begins a frame's time before the end; two more for the guess
        if not self.counted and last_ms * self.fps / 1000 >= self.announced - 3:
            self.announced = self.read

    def _picture(self) -> Image | None:
        if self._first is not None:
            return self._first
        ok, image = self._capture.retrieve()
        if not ok or image is None:
            self.broken += 1
            return None
        return np.asarray(image, np.uint8)

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


def open_capture(name: str | int, timeout: float) -> cv2.VideoCapture:
    """OpenCV's capture of a file, an address or a webcam, opened or not.

    Args:
        name: a path, an address, or a webcam's number.
        timeout: seconds after which FFmpeg gives up opening an address, or waiting for a frame.
    """
    if isinstance(name, int) or "://" not in name:
        return cv2.VideoCapture(name)
    ms = max(1, round(1000 * timeout))
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, ms]
    limits += [cv2.CAP_PROP_N_THREADS, 1]  # each further one holds back a frame
    return cv2.VideoCapture(name, cv2.CAP_FFMPEG, limits)


def shown_address(address: str) -> str:
    """An address without the user name and password that it may hold."""
    return re.sub(r"(?<=://)[^/?#]*@", "", address)  # a password may hold an @ itself


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
    file is opened again before it gets its name. After an error there is no file. OpenCV writes a
    constant rate; an .mp4 whose frames came with other times gets those before it gets its name.

    Args:
        path: where to write; the suffix picks the container.
        fps: frame rate.
        size: (height, width) in pixels.

    Attributes:
        written: frames so far.
        temporary: where the file is until it is whole.
        times_lost: its frames' own times could not be written: it has a constant rate.

    Raises:
        BadInput: the encoder cannot write there, or what it wrote cannot be read back.
    """

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int]) -> None:
        self.path, self._fps, self._size, self.written = path, fps, size, 0
        self.times_lost, self._times = False, array("d")
        opencv_name(path)  # an error names this, not the temporary name
        with ExitStack() as stack:
            self.temporary = stack.enter_context(atomic_path(path))
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            name = opencv_name(self.temporary)
            self._writer = cv2.VideoWriter(name, fourcc, fps, (size[1], size[0]))
            if not self._writer.isOpened():
                raise BadInput(
                    f"cannot write the video {path}",
                    why="OpenCV has no mp4v encoder, or refuses the suffix, the size or the rate",
                    fix="Use the suffix .mp4 and the opencv-python-headless wheel",
                )
            self._file = stack.pop_all()

    def write(self, image: Image, time_ms: float | None = None) -> None:
        """Add a frame; one of another size is fitted into the video's, with black beside it.

        Args:
            image: (H, W, 3) uint8 BGR.
            time_ms: when it is shown; None for the constant rate. All frames have one, or none.
        """
        if image.shape[:2] != self._size:
            image = _fitted(image, self._size)
        self._writer.write(image)
        self.written += 1
        if time_ms is not None:
            self._times.append(time_ms)

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
            self._check()  # before the index is touched: a file that is not whole has none
            if self.path.suffix.lower() == ".mp4" and not self._constant():
                try:
                    set_times(self.temporary, self._times, last_ms=self._last_ms())
                except ValueError:
                    self.times_lost = True
                self._check()

    def _constant(self) -> bool:
        """Whether the frames' times are those of the constant rate, to a tenth of a step."""
        if len(self._times) < max(2, self.written):
            return True
        steps = np.diff(np.asarray(self._times)) * self._fps / 1000
        times = np.cumsum(steps) - np.arange(1, len(self._times))
        return bool(np.abs(steps - 1).max() < 0.1 and np.abs(times).max() < 0.5)

    def _last_ms(self) -> float:
        return float(np.median(np.diff(np.asarray(self._times))))

    def _check(self) -> None:
        try:
            with VideoReader(self.temporary) as video:
                whole = video.announced if video.counted else sum(1 for _ in video)
        except BadInput:
            whole = 0
        if whole != self.written:
            raise BadInput(
                f"the video {self.path} could not be written",
                why=f"of {self.written} frames {whole} can be read back",
                fix="See that the disk is not full and that no limit on file sizes is in force",
            )


def _fitted(image: Image, size: tuple[int, int]) -> Image:
    """An image at another size (height, width), its aspect kept, in the middle of black."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(scale * n)) for n in image.shape[:2])
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height))
    return canvas
