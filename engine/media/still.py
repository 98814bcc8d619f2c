"""Notice frames that hardly differ from the frame that was detected on last."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image

_CELLS = 64  # along the longer side: a cell of a frame of 1280x720 has 20x20 pixels


@dataclass(frozen=True)
class _Reference:
    """A frame that was detected on."""

    size: tuple[int, int]
    cells: npt.NDArray[np.int16]
    time_ms: float


class StillScenes:
    """Tells which frames of a video may take over the result of the frame before.

    A frame is divided into 64 cells along its longer side. It is still if the mean grey of no cell
    differs by more than a threshold from the last frame that was not still. So a slow change adds
    up, a small object changes its cell, and the noise of a camera is averaged out.

    Args:
        threshold: largest difference of a cell, in grey levels from 0 to 255.
        longest: most seconds for which frames may be still, by the video's time.
    """

    def __init__(self, threshold: float, longest: float) -> None:
        self._threshold, self._longest = threshold, longest
        self._references: dict[int, _Reference] = {}

    def __call__(self, frame: Frame) -> bool:
        """Whether the next frame of its source is still. Images, which have no time, never are."""
        if frame.time_ms is None:
            return False
        size, cells = frame.image.shape[:2], grey_cells(frame.image)
        old = self._references.get(frame.source_index)
        if old is not None and old.size == size:
            recent = frame.time_ms - old.time_ms <= 1000 * self._longest
            if recent and np.abs(cells - old.cells).max() <= self._threshold:
                return True
        self._references[frame.source_index] = _Reference((size[0], size[1]), cells, frame.time_ms)
        return False


def grey_cells(image: Image) -> npt.NDArray[np.int16]:
    """The mean grey of each cell of an image (H, W, 3) uint8 BGR."""
    height, width = image.shape[:2]
    scale = _CELLS / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.int16)
