"""A frame on its way, and which frames of a source are wanted."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from retinart.engine.media.images import Image
from retinart.engine.media.settings import Selection


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A decoded frame.

    Attributes:
        source: the file, image, camera or address that it is of, without passwords.
        source_index: index of its source in the list of sources.
        index: in the video or in the list of images, from 0; of a live source the count of frames
            received before it.
        time_ms: presentation time in the video; of a live source the time since its first frame;
            None for an image.
        image: (H, W, 3) uint8 BGR.
        utc: when it was received from a live source; None for files.
        captured: when it was decoded, or received from a live source; `time.perf_counter` seconds.
    """

    source: str
    source_index: int = 0
    index: int
    time_ms: float | None
    image: Image
    utc: datetime | None = None
    captured: float = field(default_factory=time.perf_counter)


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
