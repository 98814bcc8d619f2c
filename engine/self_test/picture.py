"""The rule by which a probe's picture and positions are drawn.

Files of an earlier version must find the same ones: change RULE with the rule."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retinart.engine.media.images import Image
from retinart.engine.model.info import ModelInfo
from retinart.engine.model.probe import POSITIONS


def probe_picture(seed: int, size: tuple[int, int]) -> Image:
    """The picture of a seed, (H, W, 3) uint8 BGR: squares of 64, 16 and 4 pixels on each other.

    Each colour of a pixel is 128 + 4 (0.7 a + 0.2 b + 0.1 c - 128), cut to 0..255, where a, b and c
    are bytes drawn for its squares. So large areas are black, white or of a pure colour: extremes
    that make sums saturate. The colours are independent, so swapped channels show.
    """
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.uint32)
    picture = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        tenths = np.zeros((height, width), np.int32)
        for side, weight in ((64, 7), (16, 2), (4, 1)):
            key = np.uint32(100 * side + channel)
            drawn = _mix(seed, y // np.uint32(side), x // np.uint32(side), key) >> np.uint32(24)
            tenths += weight * drawn.astype(np.int32)
        picture[..., channel] = np.clip(128 + (4 * (tenths - 1280)) // 10, 0, 255)
    return picture


def probe_positions(seed: int, tensor: int, values: int) -> npt.NDArray[np.intp]:
    """(POSITIONS,) flat indices into a raw output, the one with this number, of so many values."""
    drawn = _mix(seed, np.arange(POSITIONS, dtype=np.uint32), np.uint32(1 + tensor))
    return (drawn % np.uint32(values)).astype(np.intp)


def probe_size(info: ModelInfo) -> tuple[int, int]:
    """(height, width) of a picture that is not resized on its way to the network."""
    rule = info.resize
    size = rule.canvas or (rule.short_side or info.min_size[0],) * 2
    while (fitted := rule.fit(*size)) != size:
        size = fitted
    return size


def _mix(seed: int, *parts: npt.NDArray[np.uint32] | np.uint32) -> npt.NDArray[np.uint32]:
    """32 bits that look random, for each element. The constants come from xxHash32."""
    value = np.atleast_1d(np.uint32(seed * 2654435761 % 2**32))
    for part in parts:
        value = (value ^ part) * np.uint32(2246822519)
        value = (value ^ (value >> np.uint32(15))) * np.uint32(3266489917)
        value = value ^ (value >> np.uint32(13))
    return value
