"""Which frames of a source are wanted, how patient live sources are, and how frames wait."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from retinart.engine.errors import BadInput

FOREVER = -1  # of max_retries
_LONGEST_WAIT = 30.0  # seconds between two attempts to connect


@dataclass(frozen=True, kw_only=True)
class Position:
    """A position in a source: seconds or frames from its beginning."""

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
                f"{text!r} is not a position in a video",
                fix="Give seconds, such as 12.5, or frames, such as 300f",
            )
        if match[1] is not None:
            return cls(frames=int(match[1]))
        return cls(seconds=float(match[2]))

    def reached(self, index: int, time_ms: float | None) -> bool:
        """Whether a frame stands at this position or behind it."""
        if self.frames is not None:
            return index >= self.frames
        # half a millisecond less: some containers round times to whole ones
        return (time_ms or 0.0) >= 1000 * (self.seconds or 0.0) - 0.5


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which frames of a source are wanted.

    Attributes:
        every: take one frame in so many, from the start on.
        max_fps: frames a second at most. A file's frames count by the video's time, a live source's
            by the clock.
        start, end: take frames from `start` up to, not including, `end`; None sets no limit.

    Raises:
        BadInput: a number that makes no sense.
    """

    every: int = 1
    max_fps: float | None = None
    start: Position | None = None
    end: Position | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BadInput(f"`every` is {self.every}", fix="Give a whole number from 1 on")
        if self.max_fps is not None and not 0 < self.max_fps < math.inf:
            raise BadInput(f"`max_fps` is {self.max_fps}", fix="Give a number above 0")

    @property
    def timed(self) -> bool:
        """Whether the frames need times, which images do not have."""
        ends = (p for p in (self.start, self.end) if p is not None)
        return self.max_fps is not None or any(p.seconds is not None for p in ends)


@dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """How patient a live source is.

    Attributes:
        timeout: seconds to wait for a connection, and for a frame.
        max_retries: attempts to connect again without a frame in between, before the source is
            given up; `FOREVER` (-1) never gives up.
        backoff: seconds before the first such attempt; each further one waits twice as long, up to
            30 s.

    Raises:
        BadInput: a number that makes no sense.
    """

    timeout: float = 10.0
    max_retries: int = 5
    backoff: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= 3600:
            raise BadInput(f"`timeout` is {self.timeout}", fix="Give 0 to 3600 seconds")
        if self.max_retries < FOREVER or self.backoff < 0:
            raise BadInput(
                f"`max_retries` is {self.max_retries} and `backoff` {self.backoff}",
                fix="Give numbers from 0, or -1 as `max_retries` to retry for ever",
            )

    def wait_before(self, retry: int) -> float:
        """Seconds to wait before an attempt; `retry` counts from 1 since the last frame."""
        return min(_LONGEST_WAIT, self.backoff * 2.0 ** min(retry - 1, 10))


@dataclass(frozen=True, kw_only=True)
class StreamSettings(Selection, LiveSettings):
    """Which frames are wanted, how patient live sources are, and how many frames may wait.

    `Selection` and `LiveSettings` describe the other settings.

    Attributes:
        skip_still: a frame of a video takes over the result of the frame before if the mean grey of
            no cell has changed by more than so many levels; None detects on every frame.
        max_skip: most seconds for which a result is taken over.
        buffer: steps that may wait before each stage; None is 2. With a live source None is 0
            before the detector, so that it gets the newest frame when it is free, and 1 behind.

    Raises:
        BadInput: a number that makes no sense.
    """

    buffer: int | None = None
    skip_still: float | None = None
    max_skip: float = 1.0

    def __post_init__(self) -> None:
        Selection.__post_init__(self)
        LiveSettings.__post_init__(self)
        if self.buffer is not None and not 0 <= self.buffer <= 1000:
            raise BadInput(f"`buffer` is {self.buffer}", fix="Give a whole number from 0 to 1000")
        if self.skip_still is not None and not 0 <= self.skip_still <= 255:
            raise BadInput(f"`skip_still` is {self.skip_still}", fix="Give grey levels, 0 to 255")
        if not 0 < self.max_skip < math.inf:
            raise BadInput(f"`max_skip` is {self.max_skip}", fix="Give seconds above 0")
