"""Resizing: the one place where an image becomes a network input, used by every part.

The aspect is kept; the image goes to the top left, and what is left over at the right and at the
bottom is filled with the 8-bit colour nearest to what normalises to zero, as RetinaNets pad.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections
from retinart.engine.media.images import Image

PAPER_RATIO = 1333 / 800  # longest side over the shorter one's length


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
        return Detections(
            xyxy=xyxy[inside], confidence=found.confidence[inside], class_id=found.class_id[inside]
        )

    def from_source(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes (M, 4) xyxy from pixels of the image to pixels of the canvas."""
        (h, w), (source_h, source_w) = self.size, self.source_size
        ratio = np.array([w / source_w, h / source_h] * 2, np.float32)
        return np.asarray(boxes * ratio, np.float32)


@dataclass(frozen=True, kw_only=True)
class ResizeRule:
    """How images are brought to the network's size.

    Attributes:
        short_side: length that the shorter side gets; None fills the canvas.
        max_size: the longer side's limit when there is no canvas.
        canvas: (height, width) that every image is padded to; None pads each image (or batch)
            only to the next multiple of `pad_multiple`.
        pad_multiple: heights and widths are multiples of this.
        pad_value: BGR colour of the padding.
    """

    short_side: int | None
    max_size: int | None
    canvas: tuple[int, int] | None
    pad_multiple: int
    pad_value: tuple[int, int, int]

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this size is resized to, before padding."""
        scale = math.inf
        if self.short_side is not None:
            scale = self.short_side / min(height, width)
        if self.max_size is not None:
            scale = min(scale, self.max_size / max(height, width))
        if self.canvas is not None:
            scale = min(scale, self.canvas[0] / height, self.canvas[1] / width)
        # the epsilon keeps 333 * (1000 / 333) from falling to 999
        return max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6))

    def canvas_for(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        """(height, width) that holds all of these fitted sizes."""
        if self.canvas is not None:
            return self.canvas
        height, width = (max(s[i] for s in sizes) for i in (0, 1))
        return round_up(height, self.pad_multiple), round_up(width, self.pad_multiple)

    def apply(self, images: list[Image]) -> tuple[Image, list[Resized]]:
        """Resize images into one batch.

        Args:
            images: each (H, W, 3) uint8 BGR.

        Returns:
            The batch (N, height, width, 3) uint8 BGR, and for each image a `Resized` whose frame
            is its view of the batch.
        """
        sizes = [self.fit(*image.shape[:2]) for image in images]
        height, width = self.canvas_for(sizes)
        batch = np.empty((len(images), height, width, 3), np.uint8)
        resized = []
        for image, (h, w), frame in zip(images, sizes, batch, strict=True):
            if (h, w) == (height, width):  # no padding: straight into place
                cv2.resize(image, (w, h), dst=frame, interpolation=cv2.INTER_LINEAR)
            else:
                frame[:h, :w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
                frame[h:] = self.pad_value
                frame[:h, w:] = self.pad_value
            source_size = (image.shape[0], image.shape[1])
            resized.append(Resized(frame=frame, size=(h, w), source_size=source_size))
        return batch, resized


def round_up(value: int, multiple: int) -> int:
    """The next multiple that is at least `value`."""
    return -(-value // multiple) * multiple
