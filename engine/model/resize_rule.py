"""Resizing: the one place where an image becomes a network input, used by every part.

The aspect is kept. The image goes to the top left; the rest, at the right and at the bottom, is
filled with the 8-bit colour nearest to the one that normalises to zero, as RetinaNets pad.

A rule is part of a file's metadata, and `retinart inspect` reads those without OpenCV and NumPy: so
`apply` imports them, and this module does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from retinart.engine.model.variant import Interpolation, SizeRounding, Variant

if TYPE_CHECKING:
    from retinart.engine.media.images import Image
    from retinart.engine.model.resized_image import Resized

SIDES = range(1, 32_769)  # pixels that a side of an input may have
PAPER_RATIO = 1333 / 800  # limit of the longer side over the length of the shorter one


@dataclass(frozen=True, kw_only=True)
class ResizeRule:
    """How images are brought to the network's size.

    Attributes:
        short_side: length that the shorter side gets; None makes an image as large as fits.
        max_size: limit of the longer side when there is no canvas.
        canvas: (height, width) that every image is padded to. None pads each batch to the next
            multiple of `pad_multiple`.
        pad_multiple: heights and widths are multiples of this.
        pad_value: BGR colour of the padding.
        interpolation, size_rounding: see `Variant`. Files that were written before these fields
            existed have the values that stand here.
    """

    short_side: int | None
    max_size: int | None
    canvas: tuple[int, int] | None
    pad_multiple: int
    pad_value: tuple[int, int, int]
    interpolation: Interpolation = "opencv"
    size_rounding: SizeRounding = "floor"

    @classmethod
    def of_variant(
        cls,
        variant: Variant,
        *,
        pad_multiple: int,
        short_side: int | None = None,
        max_size: int | None = None,
        canvas: tuple[int, int] | None = None,
    ) -> ResizeRule:
        """A rule with the padding's colour, the interpolation and the rounding of a variant."""
        return cls(
            short_side=short_side,
            max_size=max_size,
            canvas=canvas,
            pad_multiple=pad_multiple,
            pad_value=variant.pad_value,
            interpolation=variant.interpolation,
            size_rounding=variant.size_rounding,
        )

    def __post_init__(self) -> None:
        for value, known in (
            (self.interpolation, get_args(Interpolation)),
            (self.size_rounding, get_args(SizeRounding)),
        ):
            if value not in known:
                raise ValueError(f"{value!r} is not one of {', '.join(known)}")
        sides = (self.short_side, self.max_size, self.pad_multiple, *(self.canvas or ()))
        if not all(side is None or side in SIDES for side in sides):
            raise ValueError(f"the sides {sides} are not all from 1 to {SIDES[-1]} pixels")
        if not all(0 <= value <= 255 for value in self.pad_value):
            raise ValueError(f"the padding's colour is {self.pad_value}")

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
        add = {"floor": 1e-6, "float_floor": 0.0, "nearest": 0.5}[self.size_rounding]
        return max(1, int(height * scale + add)), max(1, int(width * scale + add))

    def canvas_for(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        """(height, width) that holds all of these fitted sizes."""
        if self.canvas is not None:
            return self.canvas
        height, width = (max(s[i] for s in sizes) for i in (0, 1))
        return round_up(height, self.pad_multiple), round_up(width, self.pad_multiple)

    def groups(self, images: Sequence[Image]) -> list[list[int]]:
        """Images that may share a batch without changing each other's results, by their indices.

        Without a canvas a batch is as large as its largest image, and GroupNorm sees what the
        smaller ones are padded with. So the images of a batch have to be padded to one size alone.
        """
        if self.canvas is not None:
            return [list(range(len(images)))]
        found: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            canvas = self.canvas_for([self.fit(*image.shape[:2])])
            found.setdefault(canvas, []).append(index)
        return list(found.values())

    def apply(self, images: Sequence[Image]) -> tuple[Image, list[Resized]]:
        """Resize images into one batch.

        Args:
            images: each (H, W, 3) uint8 BGR.

        Returns:
            The batch (N, height, width, 3) uint8 BGR, and a `Resized` for each image, whose frame
            is a view into the batch.
        """
        import numpy as np

        from retinart.engine.model.interpolate import interpolate
        from retinart.engine.model.resized_image import Resized

        sizes = [self.fit(*image.shape[:2]) for image in images]
        height, width = self.canvas_for(sizes)
        batch = np.empty((len(images), height, width, 3), np.uint8)
        resized = []
        for image, (h, w), frame in zip(images, sizes, batch, strict=True):
            interpolate(image, frame[:h, :w], self.interpolation)
            frame[h:] = self.pad_value
            frame[:h, w:] = self.pad_value
            source_size = (image.shape[0], image.shape[1])
            resized.append(Resized(frame=frame, size=(h, w), source_size=source_size))
        return batch, resized


def round_up(value: int, multiple: int) -> int:
    """The next multiple that is at least `value`."""
    return -(-value // multiple) * multiple
