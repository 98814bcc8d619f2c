"""What the readers of videos and of animated pictures share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from retinart.engine.common.timing import TimeStage
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image
from retinart.engine.media.source import SourceCounts


class FileReader:
    """The base of the `Source`s that decode one file. One thread at a time takes a frame.

    A reader that derives from it sets `_frames`, and closes its file in `_close_file`.
    """

    live = stills = False
    unreadable: tuple[tuple[Path, str], ...] = ()
    name: str

    def __init__(self, source_index: int, time_stage: TimeStage) -> None:
        self.counts = SourceCounts()
        self._source_index, self._time_stage = source_index, time_stage
        self._busy = threading.Lock()
        self._frames: Iterator[Frame] = iter(())

    @property
    def ended(self) -> bool:
        """See `Source`."""
        return bool(self.counts.ended)

    def take(self) -> Frame | None:
        """The next frame, or None at the end."""
        start = time.perf_counter()
        with self._busy:
            frame = next(self._frames, None)
        if frame is not None:
            self._time_stage("decode", time.perf_counter() - start)
        return frame

    def close(self) -> None:
        """Close the file, once the frame that another thread may be decoding is done."""
        with self._busy:
            self.counts.ended = self.counts.ended or "stopped"
            self._frames = iter(())
            self._close_file()

    def _frame(self, index: int, time_ms: float, image: Image) -> Frame:
        return Frame(
            source=self.name,
            source_index=self._source_index,
            index=index,
            time_ms=time_ms,
            image=image,
        )

    def _close_file(self) -> None:
        raise NotImplementedError
