"""Writing video: H.264 in MP4, with the frames' own times, for every player and browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from retinart.engine.common.files import AtomicFile
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.media.images import Image
from retinart.engine.media.sound import Sound
from retinart.engine.media.video import file_url

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # FFmpeg's, by suffix
_ENCODER = "libx264"
# The cheapest preset, on one thread, as inference needs the cores; it is about as costly as MPEG-4
# Part 2 and as small. It reorders no frames and holds none back.
OPTIONS = {"preset": "ultrafast", "crf": "23"}
TICKS = 90_000  # a second, as in MPEG-TS: a hundredth of a millisecond is kept


class VideoWriter:
    """A video of frames of one size, which gets its name when it is whole.

        with VideoWriter(path, fps=25, size=(480, 640)) as video:
            video.write(frame)

    It is H.264 as every browser plays it (yuv420p, BT.709, the index first). Such a video has even
    sizes: an odd one is filled up with one more row or column, a repetition of the last. An
    error leaves no file.

    Args:
        path: where to write; its suffix is .mp4, .m4v, .mov or .mkv.
        fps: frame rate of frames that are written without a time.
        size: (height, width) of the frames in pixels.
        sound: a video file whose sound is kept beside the frames' times, or None.

    Attributes:
        written: frames so far.
        temporary: where the file is until it is whole.

    Raises:
        BadInput: the file cannot be written; the reason is FFmpeg's.
        MissingDependency: this FFmpeg has no H.264 encoder.
    """

    def __init__(
        self, path: Path, *, fps: float, size: tuple[int, int], sound: Path | None = None
    ) -> None:
        self.path, self._fps, self.written = path, fps, 0
        container = _FORMATS.get(path.suffix.lower())
        if container is None:
            raise BadInput(
                f"cannot write the video {path}",
                why="this container does not hold H.264 with the frames' own times",
                fix=f"Use one of the suffixes {', '.join(_FORMATS)}",
            )
        self._first_ms, self._last = 0.0, -1  # the first frame's time, the last one's in ticks
        self._convert, self._sound = ToYuv(size), None
        self._file = VideoFile(path, container)
        self.temporary, self._container = self._file.temporary, self._file.container
        try:
            with explained(self.path):
                self._stream = add_h264(self._container, fps=fps, size=size, options=OPTIONS)
                if sound is not None:
                    self._sound = Sound(sound, self._container)
                self._container.start_encoding()
        except BaseException:
            self.discard()
            raise

    def write(self, image: Image, time_ms: float | None = None) -> None:
        """Add a frame; one of another size is fitted into the video's, with black beside it.

        Args:
            image: (H, W, 3) uint8 BGR.
            time_ms: when it is shown; None for the constant rate. All frames have a time, or none.
                The first frame's becomes 0; one that runs backwards is shown at once.

        Raises:
            BadInput: it cannot be written; the reason is FFmpeg's.
        """
        if time_ms is None:
            time_ms = 1000 * self.written / self._fps
        if not self.written:
            self._first_ms = time_ms
        self._last = max(self._last + 1, round((time_ms - self._first_ms) * TICKS / 1000))
        frame = self._convert(image)
        frame.pts, frame.time_base = self._last, Fraction(1, TICKS)
        with explained(self.path):
            if self._sound is not None and not self.written:
                self._sound.begin(time_ms / 1000)
            self._container.mux(self._stream.encode(frame))
            self._mux_sound(self._last / TICKS)
        self.written += 1

    def _mux_sound(self, until: float) -> None:
        if self._sound is not None:
            for packet in self._sound.until(until):
                self._container.mux(packet)

    def commit(self) -> None:
        """End the file and give it its name.

        Raises:
            BadInput: it cannot be written; then it is deleted.
        """
        try:
            with explained(self.path):
                self._mux_sound(self._last / TICKS + 1 / self._fps)
                self._container.mux(self._stream.encode(None))
            self._file.commit()
        finally:
            self.discard()

    def discard(self) -> None:
        """Delete the file. After `commit` it stays."""
        self._file.discard()
        if self._sound is not None:
            self._sound.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.commit()
        else:
            self.discard()


class VideoFile:
    """A container that is written to, and gets its file's name when it is whole.

    Args:
        path: where to write.
        format: FFmpeg's name of the container's format.

    Attributes:
        container: open for writing.
        temporary: where the file is until it is whole.
    """

    def __init__(self, path: Path, format: str) -> None:
        self._path, self._file = path, AtomicFile(path)
        self.temporary = self._file.temporary
        options = {} if format == "matroska" else {"movflags": "faststart"}
        self.container = av.open(file_url(self.temporary), "w", format, options=options)

    def commit(self) -> None:
        """End the file and give it its name.

        Raises:
            BadInput: it cannot be written; then it is deleted.
        """
        try:
            with explained(self._path):
                self.container.close()
                self._file.commit()
        finally:
            self.discard()

    def discard(self) -> None:
        """Delete the file. After `commit` it stays."""
        with suppress(av.FFmpegError, OSError):
            self.container.close()
        self._file.discard()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """FFmpeg's reason, as an error that names the video.

    Raises:
        BadInput: the video cannot be written.
    """
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise BadInput(
            f"cannot write the video {path}",
            why=error.strerror or str(error),
            fix="Make room, write to another folder, or leave the video out",
        ) from error


def add_h264(
    container: OutputContainer, *, fps: float, size: tuple[int, int], options: dict[str, str]
) -> av.VideoStream:
    """A stream of a container that encodes H.264 as every browser plays it.

    Args:
        container: open for writing.
        fps: frame rate that it announces.
        size: (height, width) of the frames in pixels; see `ToYuv`.
        options: of the encoder.

    Raises:
        MissingDependency: this FFmpeg has no H.264 encoder.
    """
    try:
        av.Codec(_ENCODER, "w")
    except ValueError as error:
        raise MissingDependency(
            f"PyAV {av.__version__} has no H.264 encoder",
            why=f"its FFmpeg was built without {_ENCODER}",
            fix="Install PyAV's own wheel with `pip install --force-reinstall av`",
        ) from error
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream(_ENCODER, rate=rate, options=options)
    assert isinstance(stream, av.VideoStream)
    stream.height, stream.width = (n + n % 2 for n in size)
    context = stream.codec_context
    context.pix_fmt, context.time_base, context.thread_count = "yuv420p", Fraction(1, TICKS), 1
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


class ToYuv:
    """Makes frames for `add_h264` of images (H, W, 3) uint8 BGR.

    An image of another size is fitted in, with black beside it.

    Args:
        size: (height, width) in pixels. An odd one gets one more row or column, which repeats the
            last one.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size, self._convert = size, VideoReformatter()

    def __call__(self, image: Image) -> av.VideoFrame:
        """The frame (even H, even W), yuv420p."""
        height, width = self._size
        if image.shape[:2] != self._size:
            image = _fitted(image, self._size)
        if height % 2 or width % 2:
            border = (0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            image = np.asarray(cv2.copyMakeBorder(image, *border), np.uint8)
        bgr = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="bgr24")
        return self._convert.reformat(
            bgr, format="yuv420p", dst_colorspace=Colorspace.ITU709, threads=1
        )


def _fitted(image: Image, size: tuple[int, int]) -> Image:
    """An image at another size (height, width), its aspect kept, in the middle of black."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(scale * n)) for n in image.shape[:2])
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height))
    return canvas
