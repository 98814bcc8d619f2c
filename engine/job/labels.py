"""Labels of boxes that do not hide each other, and a legend of classes.

All text is set by OpenCV's Hershey letters, whose strokes are the same in every version. Its anti-
aliasing and its measures belong to the version: `tests/engine/job/test_labels.py` holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from retinart.engine.media.images import Image

Color = tuple[int, int, int]  # BGR
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LEGEND_ROWS = 12


@dataclass(frozen=True)
class Style:
    """How large letters are.

    Attributes:
        scale: of OpenCV's letters.
        pen: their thickness in pixels.
    """

    scale: float
    pen: int

    @classmethod
    def of(cls, image: Image) -> Style:
        """Letters grow with the image. Small ones are thin, to stay readable."""
        scale = max(0.35, min(image.shape[:2]) / 1000)
        return cls(scale, max(1, round(1.6 * scale)))

    def size(self, text: str) -> tuple[int, int, int]:
        """The width of a text, the height of its letters, and the room below them, in pixels."""
        (width, height), base = cv2.getTextSize(text, _FONT, self.scale, self.pen)
        return width, height, base


@dataclass(frozen=True)
class Label:
    """A text on a filled rectangle; `height` is of the letters, `base` the room below them."""

    text: str
    left: int
    top: int
    width: int
    height: int
    base: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """The rows and columns of the rectangle."""
        bottom = self.top + self.height + self.base
        return slice(self.top, bottom), slice(self.left, self.left + self.width)

    def draw(self, canvas: Image, color: Color, style: Style) -> None:
        """Draw it in black or white letters, as the colour is light or dark."""
        canvas[self.pixels] = color
        light = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 140
        ink, origin = (0, 0, 0) if light else (255, 255, 255), (self.left, self.top + self.height)
        cv2.putText(canvas, self.text, origin, _FONT, style.scale, ink, style.pen, cv2.LINE_AA)


def place_labels(
    boxes: Sequence[Sequence[int]],
    texts: Sequence[Sequence[str]],
    size: tuple[int, int],
    style: Style,
    taken: Sequence[Label] = (),
) -> list[Label | None]:
    """A label for each box, so that none hides another one.

    The best box chooses first. Each takes the first of its texts that fits above the box, in it, or
    below it, at its left or right side. A box for which none fits gets no label.

    Args:
        boxes: x1, y1, x2, y2 in whole pixels, the best first.
        texts: of each box, the longest first.
        size: (height, width) of the picture.
        style: of the letters.
        taken: labels that are there already.
    """
    used = np.zeros(size, np.bool_)
    for one in taken:
        used[one.pixels] = True
    placed = list[Label | None]()
    for box, choices in zip(boxes, texts, strict=True):
        places = (place for text in choices for place in _places(box, text, size, style))
        label = next((place for place in places if not used[place.pixels].any()), None)
        if label is not None:
            used[label.pixels] = True
        placed.append(label)
    return placed


def _places(box: Sequence[int], text: str, size: tuple[int, int], style: Style) -> list[Label]:
    (x1, y1, x2, y2), (height, width) = box, size
    w, h, base = style.size(text)
    room, tall = max(0, height - h - base), h + base
    tops = ([y1 - tall] if y1 >= tall else []) + [y1, y2, y2 - tall]
    lefts = [min(max(0, x), max(0, width - w)) for x in (x1, x2 - w)]
    return [Label(text, left, min(max(0, top), room), w, h, base) for left in lefts for top in tops]


def draw_legend(
    canvas: Image,
    entries: Sequence[tuple[str, Color]],
    boxes: Iterable[Sequence[int]],
    style: Style,
) -> list[Label]:
    """Draw names in their colours, in the corner where they cover the least of the boxes.

    Args:
        canvas: (H, W, 3) uint8 BGR, which is changed.
        entries: names with colours. Of more than twelve, or more than fit, the rest is a number.
        boxes: x1, y1, x2, y2 in whole pixels.
        style: of the letters.

    Returns:
        Its rows.
    """
    height, width = canvas.shape[:2]
    tall = sum(style.size("A")[1:]) + 2
    rows = max(1, min(_LEGEND_ROWS, height // 2 // tall))
    shown = list(entries if len(entries) <= rows else entries[: rows - 1])
    if len(shown) < len(entries):
        shown.append((f"and {len(entries) - len(shown)} more", (90, 90, 90)))
    w = max(style.size(name)[0] for name, _ in shown)
    h = tall * len(shown)
    corners = [(x, y) for y in (0, max(0, height - h)) for x in (max(0, width - w), 0)]
    x, y = min(corners, key=lambda c: _covered((c[0], c[1], c[0] + w, c[1] + h), boxes))
    made = list[Label]()
    for i, (name, color) in enumerate(shown):
        _, letters, base = style.size(name)
        made.append(Label(name, x, y + i * tall, w, letters, base))
        made[-1].draw(canvas, color, style)
    return made


def _covered(area: Sequence[int], boxes: Iterable[Sequence[int]]) -> int:
    """The pixels of boxes that an area covers."""
    found = np.array(list(boxes), np.int64).reshape(-1, 4)
    low, high = np.maximum(found[:, :2], area[:2]), np.minimum(found[:, 2:], area[2:])
    return int(np.clip(high - low, 0, None).prod(axis=1).sum())
