"""Animated pictures as videos: GIF, PNG, WebP and AVIF through Pillow.

FFmpeg reads animated PNG and most GIF files, but neither GIF files without times nor WebP.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.timing import TimeStage
from retinart.engine.errors import BadInput
from retinart.engine.media.frame import Chooser, Frame
from retinart.engine.media.header import Header
from retinart.engine.media.header_readers import COPY, open_file, open_with_pillow
from retinart.engine.media.images import Image, upright
from retinart.engine.media.pixel_limit import check_pixels
from retinart.engine.media.source import SourceCounts
from retinart.engine.settings import Selection

_USUAL_MS = 100.0  # how long browsers show a frame that names no time, or next to none
_SHORTEST_MS = 10.0


class AnimationReader:
    """The chosen frames of an animated picture, once, in order; a `Source`.

    Args:
        path: the file.
        header: what it says of itself.
        source_index: see `Frame`.
        selection: which frames.
        time_stage: told how long each frame took, with those left out before it, as "decode".

    Attributes:
        rate: frames a second, as the first one's time says.
        size: (height, width) in pixels.

    Raises:
        BadInput: the file cannot be opened, or has more pixels than `pixel_limit()`.
    """

    live = stills = has_sound = False
    unreadable = ()

    def __init__(
        self,
        path: Path,
        header: Header,
        *,
        source_index: int,
        selection: Selection,
        time_stage: TimeStage,
    ) -> None:
        check_pixels(header, path)
        self.name, self.files, self.size = str(path), (path,), header.shown
        self._header, self._source_index, self._time_stage = header, source_index, time_stage
        self._choose, self._busy = Chooser(selection), threading.Lock()
        self._file = open_file(path)
        try:
            self._image: Any = open_with_pillow(self._file, header.format)
            # an animated PNG may begin with a picture for viewers that show no animation
            self._next = int(getattr(self._image, "default_image", False))
            self.counts = SourceCounts(announced=self._image.n_frames - self._next)
            self._image.seek(self._next)
            self._image.load()  # WebP and AVIF know a frame's time then
        except Exception as error:  # damaged files make Pillow raise many kinds of errors
            self._file.close()
            raise BadInput(
                f"cannot decode the image {path}", why="its frames are damaged", fix=COPY
            ) from error
        self.rate = 1000 / self._shown_ms()
        self._time_ms = 0.0

    def _shown_ms(self) -> float:
        """How long the current frame is shown."""
        given = self._image.info.get("duration") or 0
        return float(given) if given > _SHORTEST_MS else _USUAL_MS

    @property
    def ended(self) -> bool:
        """See `Source`."""
        return bool(self.counts.ended)

    def take(self) -> Frame | None:
        """The next frame, or None at the end."""
        start = time.perf_counter()
        with self._busy:
            frame = None if self.ended else self._take()
        if frame is not None:
            self._time_stage("decode", time.perf_counter() - start)
        return frame

    def _take(self) -> Frame | None:
        counts = self.counts
        while counts.read < counts.announced:
            index, time_ms = counts.read, self._time_ms
            choice = self._choose(index, time_ms)
            if choice == "end":
                counts.ended = "end"
                return None
            image = self._decoded()
            if image is None:  # the frames behind it build on it
                counts.ended = "early"
                return None
            counts.read += 1
            if choice == "take":
                counts.taken += 1
                return Frame(
                    source=self.name,
                    source_index=self._source_index,
                    index=index,
                    time_ms=time_ms,
                    image=image,
                )
            counts.skipped += 1
        counts.ended = "end"
        return None

    def _decoded(self) -> Image | None:
        """The next frame, and the clock behind it; None of a damaged one."""
        try:
            self._image.seek(self._next)
            rgb = np.asarray(self._image.convert("RGB"), np.uint8)
        except Exception:  # see above
            return None
        self._next += 1
        self._time_ms += self._shown_ms()
        return upright(np.ascontiguousarray(rgb[:, :, ::-1]), self._header.orientation)

    def close(self) -> None:
        """Close the file, once the frame that another thread may be decoding is done."""
        with self._busy:
            self.counts.ended = self.counts.ended or "stopped"
            self._file.close()
