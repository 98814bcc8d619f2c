"""A frame on its way, and which frames of a source are wanted."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field
from typing import Literal

from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A decoded frame.

    Attributes:
        source: the file, image, camera or address that it is of, without passwords.
        place: index of its source in the list of sources.
        index: in the video or in the list of images, from 0; of a live source the count of frames
            received before it.
        time_ms: presentation time in the video; of a live source the time since its first frame;
            None for an image.
        image: (H, W, 3) uint8 BGR.
        captured: when it was decoded, or received from a live source; `time.perf_counter` seconds.
    """

    source: str
    place: int = 0
    index: int
    time_ms: float | None
    image: Image
    captured: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in a source: a number of seconds or of frames from its beginning."""

    seconds: float | None = None
    frames: int | None = None

    @classmethod
    def parse(cls, text: str) -> Position:
        """`12.5` or `12.5s` is seconds, `300f` is frames.

        Raises:
            BadInput: it is neither.
        """
        match = re.fullmatch(r"(\d+)f|(\d+(?:\.\d*)?|\.\d+)s?", text.strip())
        if match is None:
            raise BadInput(
                f"{text!r} is no position in a video",
                fix="Give seconds, such as 12.5, or frames, such as 300f",
            )
        if match[1] is not None:
            return cls(frames=int(match[1]))
        return cls(seconds=float(match[2]))

    def reached(self, index: int, time_ms: float | None) -> bool:
        """Whether a frame stands at this position or behind it."""
        if self.frames is not None:
            return index >= self.frames
        # half a millisecond, as times are rounded to whole ones in some containers
        return (time_ms or 0.0) >= 1000 * (self.seconds or 0.0) - 0.5


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which frames of a source are wanted.

    Attributes:
        every: one frame in so many, from the start on.
        max_fps: frames a second at most, by the source's own time: of a file that of the video, of
            a live source that of the clock.
        start, end: from the first up to, not including, the second; None is no limit.

    Raises:
        BadInput: a number that makes no sense.
    """

    every: int = 1
    max_fps: float | None = None
    start: Position | None = None
    end: Position | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BadInput(f"every is {self.every}", fix="Give a whole number from 1 (--every)")
        if self.max_fps is not None and not 0 < self.max_fps < math.inf:
            raise BadInput(f"max_fps is {self.max_fps}", fix="Give a positive number (--max-fps)")

    @property
    def timed(self) -> bool:
        """Whether it needs frames that have a time, as images have not."""
        ends = (p for p in (self.start, self.end) if p is not None)
        return self.max_fps is not None or any(p.seconds is not None for p in ends)


class Chooser:
    """Applies a selection to the frames of one source, in order."""

    def __init__(self, selection: Selection) -> None:
        self._selection, self._seen, self._due = selection, 0, -math.inf

    def __call__(self, index: int, time_ms: float | None) -> Literal["take", "skip", "end"]:
        """What to do with the next frame."""
        wanted = self._selection
        if wanted.end is not None and wanted.end.reached(index, time_ms):
            return "end"
        if wanted.start is not None and not wanted.start.reached(index, time_ms):
            return "skip"
        self._seen += 1
        if (self._seen - 1) % wanted.every:
            return "skip"
        if wanted.max_fps is not None and time_ms is not None:
            if time_ms < self._due - 0.5:
                return "skip"
            period = 1000 / wanted.max_fps
            # from when it was due rather than from now, or 30 a second would give 15 for 20
            self._due = (self._due if self._due > time_ms - period else time_ms) + period
        return "take"
