"""Image files as a source: the chosen ones, in order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from retinart.engine.common.timing import TimeStage
from retinart.engine.errors import BadInput
from retinart.engine.media.frame import Chooser, Frame
from retinart.engine.media.images import Note, read_image, why_skipped
from retinart.engine.media.settings import Selection
from retinart.engine.media.source import SourceCounts


class ImageSource:
    """The chosen ones of a list of image files, in order; a `Source`.

    Args:
        name: what the user named: a file, a folder, a pattern.
        paths: the image files.
        source_index: see `Frame`.
        selection: which of them.
        time_stage: told how long each image took, as "decode".
        note: told what is changed of images.

    Raises:
        BadInput: the selection needs times, which images do not have.
    """

    live, stills, has_sound = False, True, False
    rate = size = None

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        *,
        source_index: int,
        selection: Selection,
        time_stage: TimeStage,
        note: Note | None = None,
    ) -> None:
        if selection.timed:
            raise BadInput(
                f"{name} holds images, which have no times",
                fix="Give `start` and `end` in frames, such as 30f, and leave `max_fps` out",
            )
        self.name, self.files = name, paths
        self.counts = SourceCounts(announced=len(paths))
        self.unreadable: list[tuple[Path, str]] = []
        self._note = note
        self._source_index, self._choose, self._time = source_index, Chooser(selection), time_stage

    @property
    def ended(self) -> bool:
        """See `Source`."""
        return bool(self.counts.ended)

    def take(self) -> Frame | None:
        """The next image that can be read, or None at the end."""
        counts = self.counts
        while counts.read < len(self.files):
            start, index = time.perf_counter(), counts.read
            choice = self._choose(index, None)
            if choice == "end":
                break
            counts.read += 1
            if choice == "skip":
                counts.skipped += 1
                continue
            path = self.files[index]
            try:
                image = read_image(path, note=self._note)
            except BadInput as error:
                counts.broken += 1
                self.unreadable.append((path, why_skipped(error)))
                continue
            counts.taken += 1
            self._time("decode", time.perf_counter() - start)
            return Frame(
                source=str(path),
                source_index=self._source_index,
                index=index,
                time_ms=None,
                image=image,
            )
        counts.ended = "end"
        return None

    def close(self) -> None:
        """See `Source`."""
        self.counts.ended = self.counts.ended or "stopped"
