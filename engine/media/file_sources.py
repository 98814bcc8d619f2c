"""Sources that are files: every chosen frame of a video or of a list of images, in order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from retinart.engine.common.timing import TimeStage
from retinart.engine.errors import BadInput
from retinart.engine.media.frame import Chooser, Frame
from retinart.engine.media.images import read_image
from retinart.engine.media.source import SourceCounts
from retinart.engine.media.video import VideoReader
from retinart.engine.settings import Selection


class VideoSource:
    """Every chosen frame of a video, in order.

    Attributes:
        video: its reader.
    """

    live = False

    def __init__(self, video: VideoReader, selection: Selection, time_stage: TimeStage) -> None:
        self.name, self.video, self.counts = video.name, video, SourceCounts()
        self.counts.announced = video.announced
        self._choose, self._time = Chooser(selection), time_stage
        self._frames = video.frames(self._decide)
        self._asked_to_end = False

    @property
    def ended(self) -> bool:
        """Whether its last frame was taken."""
        return bool(self.counts.ended)

    def take(self) -> Frame | None:
        """The next frame, or None at the end."""
        start = time.perf_counter()
        frame = next(self._frames, None)
        counts = self.counts
        counts.read, counts.broken = self.video.read, self.video.broken
        counts.announced = self.video.announced
        if frame is None:
            early = not self._asked_to_end and counts.read < counts.announced
            counts.ended = "early" if early else "end"
            return None
        self._time("decode", time.perf_counter() - start)
        counts.taken += 1
        return frame

    def close(self) -> None:
        """Close the file."""
        self.counts.ended = self.counts.ended or "stopped"
        self._frames.close()  # type: ignore[attr-defined]  # it is a generator
        self.video.close()

    def _decide(self, index: int, time_ms: float) -> str:
        choice = self._choose(index, time_ms)
        self.counts.skipped += choice == "skip"
        self._asked_to_end |= choice == "end"
        return choice


class ImageSource:
    """The chosen ones of a list of image files, in order.

    Attributes:
        paths: all of them.
        unreadable: those that could not be read, with the reason.
    """

    live = False

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        place: int,
        selection: Selection,
        time_stage: TimeStage,
    ) -> None:
        if selection.timed:
            raise BadInput(
                f"{name} holds images, which have no times",
                fix="Give `start` and `end` in frames, such as 30f, and leave `max_fps` out",
            )
        self.name, self.paths, self.counts = name, paths, SourceCounts()
        self.unreadable: list[tuple[Path, str]] = []
        self.counts.announced = len(paths)
        self._place, self._choose, self._time = place, Chooser(selection), time_stage

    @property
    def ended(self) -> bool:
        """Whether its last image was taken."""
        return bool(self.counts.ended)

    def take(self) -> Frame | None:
        """The next image that can be read, or None at the end."""
        counts = self.counts
        while counts.read < len(self.paths):
            start, index = time.perf_counter(), counts.read
            choice = self._choose(index, None)
            if choice == "end":
                break
            counts.read += 1
            if choice == "skip":
                counts.skipped += 1
                continue
            path = self.paths[index]
            try:
                image = read_image(path)
            except BadInput as error:
                counts.broken += 1
                self.unreadable.append((path, error.why or error.what))
                continue
            counts.taken += 1
            self._time("decode", time.perf_counter() - start)
            return Frame(
                source=str(path), place=self._place, index=index, time_ms=None, image=image
            )
        counts.ended = "end"
        return None

    def close(self) -> None:
        """See `Source`."""
        self.counts.ended = self.counts.ended or "stopped"
