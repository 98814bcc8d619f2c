"""An image that was resized to the network's size, and the way back to its own pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections
from retinart.engine.media.images import Image


@dataclass(frozen=True, kw_only=True)
class Resized:
    """An image at the network's size, and the way back.

    Attributes:
        frame: (height, width, 3) uint8 BGR, the canvas.
        size: (height, width) of the part of the canvas that the image covers.
        source_size: (height, width) of the image.
    """

    frame: Image
    size: tuple[int, int]
    source_size: tuple[int, int]

    def to_source(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes (M, 4) xyxy from pixels of the canvas to pixels of the image, clipped to it."""
        (h, w), (source_h, source_w) = self.size, self.source_size
        ratio = np.array([source_w / w, source_h / h] * 2, np.float32)
        limit = np.array([source_w, source_h] * 2, np.float32)
        return np.asarray(np.clip(boxes * ratio, 0, limit), np.float32)

    def detections_to_source(self, found: Detections) -> Detections:
        """Detections in pixels of the image, without those that lie in the padding alone."""
        xyxy = self.to_source(found.xyxy)
        inside = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        return replace(found, xyxy=xyxy)[np.asarray(inside, np.bool_)]

    def from_source(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes (M, 4) xyxy from pixels of the image to pixels of the canvas."""
        (h, w), (source_h, source_w) = self.size, self.source_size
        ratio = np.array([w / source_w, h / source_h] * 2, np.float32)
        return np.asarray(boxes * ratio, np.float32)
