"""Draw regions, lines and zones on a picture, with what was counted at them."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from retinart.engine.keep.areas import Areas, Point
from retinart.engine.keep.keeper import scale_of
from retinart.engine.media.images import Image

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def draw_areas(canvas: Image, areas: Areas, texts: Mapping[str, str]) -> None:
    """Draw areas into a picture, in white with a black edge.

    Args:
        canvas: (H, W, 3) uint8 BGR, which is changed.
        areas: what is drawn.
        texts: what stands behind an area's name.
    """
    height, width = canvas.shape[:2]
    scale = scale_of(areas, (height, width))
    thin = max(1, round(min(height, width) / 400))
    polygons = [*areas.regions, *areas.zones]
    for color, thickness in ((_BLACK, 3 * thin), (_WHITE, thin)):
        shapes = [np.round(np.array(p.points) * scale).astype(np.int32) for p in polygons]
        cv2.polylines(canvas, shapes, True, color, thickness, cv2.LINE_AA)
        for line in areas.lines:
            start, end = np.round(np.array([line.start, line.end]) * scale).astype(int).tolist()
            cv2.line(canvas, start, end, color, thickness, cv2.LINE_AA)
    named: list[tuple[str, Point]] = [(p.name, p.points[0]) for p in polygons]
    named += [(line.name, line.start) for line in areas.lines]
    size = max(0.35, min(height, width) / 1000)
    for name, point in named:
        text = f"{name}: {texts[name]}" if name in texts else name
        (w, h), base = cv2.getTextSize(text, _FONT, size, thin)
        x, y = np.round(np.array(point) * scale).astype(int).tolist()
        at = (max(0, min(x + 4, width - w)), max(h, min(y + h + 4, height - base)))
        for color, thickness in ((_BLACK, 3 * thin), (_WHITE, thin)):
            cv2.putText(canvas, text, at, _FONT, size, color, thickness, cv2.LINE_AA)
