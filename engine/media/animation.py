"""Animated pictures as videos: GIF, PNG, WebP and AVIF through Pillow.

FFmpeg reads animated PNG and most GIF files, but neither GIF files without times nor WebP.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.timing import TimeStage
from retinart.engine.errors import BadInput
from retinart.engine.media.file_reader import FileReader
from retinart.engine.media.frame import Chooser, Frame
from retinart.engine.media.header import Header
from retinart.engine.media.header_readers import COPY, open_file, open_with_pillow
from retinart.engine.media.images import Image, upright
from retinart.engine.media.pixel_limit import check_pixels
from retinart.engine.media.settings import Selection

_USUAL_MS = 100.0  # how long browsers show a frame that names no time, or next to none
_SHORTEST_MS = 10.0


class AnimationReader(FileReader):
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

    has_sound = False

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
        super().__init__(source_index, time_stage)
        self._header, self._choose = header, Chooser(selection)
        self._file = open_file(path)
        try:
            self._image: Any = open_with_pillow(self._file, header.format)
            # an animated PNG may begin with a picture for viewers that show no animation
            self._next = int(getattr(self._image, "default_image", False))
            self.counts.announced = self._image.n_frames - self._next
            self._image.seek(self._next)
            self._image.load()  # WebP and AVIF know a frame's time then
        except Exception as error:  # damaged files make Pillow raise many kinds of errors
            self._file.close()
            raise BadInput(
                f"cannot decode the image {path}", why="its frames are damaged", fix=COPY
            ) from error
        self.rate = 1000 / self._shown_ms()
        self._time_ms = 0.0
        self._frames = self._chosen()

    def _shown_ms(self) -> float:
        """How long the current frame is shown."""
        given = self._image.info.get("duration") or 0
        return float(given) if given > _SHORTEST_MS else _USUAL_MS

    def _chosen(self) -> Iterator[Frame]:
        counts = self.counts
        while counts.read < counts.announced:
            index, time_ms = counts.read, self._time_ms
            choice = self._choose(index, time_ms)
            if choice == "end":
                break
            image = self._decoded()
            if image is None:  # the frames behind it build on it
                counts.ended = "early"
                return
            counts.read += 1
            if choice == "take":
                counts.taken += 1
                yield self._frame(index, time_ms, image)
            else:
                counts.skipped += 1
        counts.ended = "end"

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

    def _close_file(self) -> None:
        self._file.close()
