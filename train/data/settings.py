"""Settings of the images to train on: how they vary, and how generated scenes look."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retinart.engine.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images vary.

    Attributes:
        flip: probability of a flip left to right.
        flip_vertical: probability of a flip upside down, for pictures without an upside.
        color: strength of the jitter of brightness, contrast and the channels' gains; 0 for none.
        scale: range of the zoom. At 1 the whole image fills the canvas, below 1 it is smaller and
            lies anywhere, above 1 a part is cut out.
        min_visible: an object is ignored, as a crowd is, if a cut leaves less than this share.

    Raises:
        BadInput: a number is out of its range.
    """

    flip: float = 0.5
    flip_vertical: float = 0.0
    color: float = 0.2
    scale: tuple[float, float] = (0.8, 1.25)
    min_visible: float = 0.35

    def __post_init__(self) -> None:
        for name, value in (
            ("probability of a flip", self.flip),
            ("probability of a vertical flip", self.flip_vertical),
            ("strength of the colour jitter", self.color),
            ("share of an object that must be visible", self.min_visible),
        ):
            if not 0 <= value <= 1:
                raise BadInput(f"the {name} is {value:g}", fix="Give a number from 0 to 1")
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise BadInput(
                f"the range of the zoom is {low:g} to {high:g}",
                fix="Give a lower and a higher factor, both above 0",
            )


NO_AUGMENTATION = Augmentation(flip=0.0, color=0.0, scale=(1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """How scenes look. Lengths are in pixels.

    Attributes:
        size: (height, width).
        max_objects: a scene holds 0 to this many objects.
        radius: smallest and largest radius of an object, drawn log-uniformly.
        min_visible: an object is left out if less than this share of it can be seen.
    """

    size: tuple[int, int] = (256, 320)
    max_objects: int = 8
    radius: tuple[float, float] = (8.0, 80.0)
    min_visible: float = 0.35
