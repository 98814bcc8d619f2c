"""Video files: their frames, in order, through FFmpeg (PyAV)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.container.core import Flags

from retinart.engine.common.timing import TimeStage
from retinart.engine.errors import BadInput
from retinart.engine.media import http_ranges
from retinart.engine.media.address import shown_address
from retinart.engine.media.decoding import Frames, Pictures
from retinart.engine.media.file_reader import FileReader
from retinart.engine.media.frame import Chooser, Frame
from retinart.engine.media.settings import Selection

_CONVERT = "Play it with ffplay to see what it is, and convert it with ffmpeg -i IN OUT.mp4"
# formats that hold names of other files
_LISTS = frozenset(("concat", "dash", "hls", "imf", "sdp", "webm_dash_manifest"))
_FILE_SECONDS = 30
_USUAL_RATE = 25.0  # where a file names none


class VideoReader(FileReader):
    """The chosen frames of a video, once, in order; a `Source`.

        with VideoReader(path) as video:
            for frame in video:
                ...

    Frames are turned and mirrored as the file says. A damaged frame is counted and passed over. A
    frame that is not chosen is decoded, because later frames build on it, but not made a picture.

    Args:
        path: the file, or an address that FFmpeg reads as one.
        source_index: see `Frame`.
        timeout: seconds to wait for an address, and for each part of it.
        selection: which frames.
        time_stage: told how long each frame took, with those left out before it, as "decode".

    Attributes:
        rate: frames a second, on average; 25 where the file names none.
        size: (height, width) of the first frame in pixels.

    Raises:
        BadInput: the file is missing, or no frame of it can be decoded.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        source_index: int = 0,
        timeout: float = 10.0,
        selection: Selection | None = None,
        time_stage: TimeStage = lambda stage, seconds: None,
        name: str = "",
    ) -> None:
        super().__init__(source_index, time_stage)
        self.path = path
        self.name = name or (str(path) if isinstance(path, Path) else shown_address(path))
        self.files = (path,) if isinstance(path, Path) else ()
        self._choose = Chooser(selection or Selection())
        self._picture = Pictures()
        self._container = self._open(timeout)
        try:
            self._begin(timeout)
        except BaseException:
            self._container.close()
            raise

    def _open(self, timeout: float) -> InputContainer:
        try:
            if isinstance(self.path, str):
                return av.open(self.path, timeout=timeout, metadata_errors="replace")
            if self.path.is_file():
                return open_file(self.path)
        except av.ArgumentError as error:
            why = "it is a list of other files, or damaged"
            raise self._undecodable(why, "Give the files that it names") from error
        except av.InvalidDataError as error:
            why = "it is empty, damaged, or of a format that FFmpeg does not know"
            raise self._undecodable(why) from error
        except (av.FFmpegError, OSError) as error:
            raise self._undecodable(error.strerror or str(error)) from error
        raise BadInput(f"there is no video at {self.path}", fix="Check the path")

    def _begin(self, timeout: float) -> None:
        """Decode the first frame, which shows that there is one, and its size."""
        # PyAV asks FFmpeg to make up times that a file lacks, which are wrong for reordered frames
        self._container.flags &= ~cast(int, Flags.gen_pts.value)
        stream = self._container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            raise self._undecodable("it holds no video")
        stream.thread_type = "AUTO"  # several frames at once, where there are cores for it
        frames, head = Frames(self._container, stream), []
        for frame in frames:
            head.append(frame)
            if frame is not None and (first := self._picture(frame)) is not None:
                break
        else:
            if (
                isinstance(self.path, str)
                and not frames.packets
                and http_ranges.is_out_of_reach(self.path, self._container.format.name, timeout)
            ):
                raise self._undecodable(http_ranges.WHY, http_ranges.FIX)
            raise self._undecodable("no frame of it can be decoded")
        self.size = (first.shape[0], first.shape[1])
        self.has_sound = bool(self._container.streams.audio)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.rate = rate if 0 < rate < 1000 else _USUAL_RATE
        self._counted = stream.frames > 0
        self._seconds = _seconds(self._container, stream)
        self.counts.announced = stream.frames or round(self._seconds * self.rate)
        self._tick_ms = 1000 * float(stream.time_base or 0)
        self._start = stream.start_time or 0
        self._decoded, self._frames = frames, self._chosen(chain(head, frames))

    def _undecodable(self, why: str, fix: str = _CONVERT) -> BadInput:
        return BadInput(f"cannot decode the video {self.name}", why=why, fix=fix)

    def _chosen(self, frames: Iterator[av.VideoFrame | None]) -> Iterator[Frame]:
        counts, period_ms = self.counts, 1000 / self.rate
        last_ms = -period_ms
        for frame in frames:
            if frame is None:
                counts.read += 1
                counts.broken += 1
                continue
            time_ms = last_ms + period_ms
            if frame.pts is not None:
                time_ms = (frame.pts - self._start) * self._tick_ms
            last_ms = max(last_ms, time_ms)
            index, choice = counts.read, self._choose(counts.read, time_ms)
            if choice == "end":
                counts.ended = "end"
                return
            counts.read += 1
            if choice == "skip":
                counts.skipped += 1
            elif (image := self._picture(frame)) is None:
                counts.broken += 1
            else:
                counts.taken += 1
                yield self._frame(index, time_ms, image)
        if self._counted:
            counts.announced -= self._decoded.hidden
        # A number that was guessed from the length gives way, if the frames reach that length: the
        # last one begins one frame's time before it, and the guess is given two more.
        elif last_ms >= 1000 * self._seconds - 3 * period_ms:
            counts.announced = counts.read
        counts.ended = "early" if counts.read < counts.announced else "end"

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.take()) is not None:
            yield frame

    def _close_file(self) -> None:
        self._container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_file(path: Path) -> InputContainer:
    """A video file, opened. Lists of other files are refused: FFmpeg would wait for a named pipe.

    It looks for a packet for half a minute at most, such as in a hole of many gigabytes.

    Raises:
        av.ArgumentError: it is such a list.
        av.FFmpegError, OSError: it cannot be read.
    """
    formats = ",".join(sorted(av.formats_available - _LISTS))
    return av.open(
        file_url(path),
        options={"format_whitelist": formats},
        metadata_errors="replace",
        timeout=_FILE_SECONDS,
    )


def file_url(path: Path) -> str:
    """A URL that FFmpeg reads as this file, even if the path holds a colon."""
    return f"file:{path}"


def _seconds(container: InputContainer, stream: av.VideoStream) -> float:
    """How long a stream says that it is; 0 when it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6
