"""Draw detections on a picture, and put pictures side by side."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from retinart.engine.common.files import atomic_path
from retinart.engine.detections import Detections
from retinart.engine.media.images import Image


@functools.cache
def class_color(class_id: int) -> tuple[int, int, int]:
    """The BGR colour of a class. The hues of successive classes are a golden angle apart."""
    hue = (0.07 + class_id * 0.618034) % 1.0
    value = 1.0 if class_id % 2 == 0 else 0.8
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw(image: Image, detections: Detections, classes: Sequence[str]) -> Image:
    """Draw detections on a copy of an image. Lines and text grow with the image.

    Args:
        image: (H, W, 3) uint8 BGR.
        detections: in the image's pixels.
        classes: names that `class_id` indexes.

    Returns:
        (H, W, 3) uint8 BGR. Every label lies inside the picture.
    """
    canvas = image.copy()
    height, width = image.shape[:2]
    scale = max(0.35, min(height, width) / 1000)
    line = max(1, round(min(height, width) / 320))
    pen = max(1, round(1.6 * scale))  # thin letters stay readable when they are small
    boxes = detections.xyxy.round().astype(int).tolist()
    labels, scores = detections.class_id.tolist(), detections.confidence.tolist()
    ids = [-1] * len(detections)
    if detections.tracker_id is not None:
        ids = detections.tracker_id.tolist()
    # of tracked objects, the colour follows one through the frames
    colors = [class_color(labels[i] if ids[i] < 0 else ids[i]) for i in range(len(ids))]
    for i in reversed(range(len(detections))):  # the best last, on top
        cv2.rectangle(canvas, boxes[i][:2], boxes[i][2:], colors[i], line)
    labelled: list[tuple[int, _Label]] = []
    for i, (x1, y1, _, y2) in enumerate(boxes):  # the best chooses its label's position first
        text = f"{classes[labels[i]]} {scores[i]:.2f}"
        if ids[i] >= 0:
            text = f"#{ids[i]} {text}"
        (w, h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, pen)
        left, room = min(max(0, x1), max(0, width - w)), max(0, height - h - base)
        places = [
            _Label(text, left, min(max(0, top), room), w, h, base)
            for top in ([y1 - h - base] if y1 >= h + base else []) + [y1, y2, y2 - h - base]
        ]
        free = (p for p in places if not any(p.hides(other) for _, other in labelled))
        labelled.append((i, next(free, places[0])))
    for i, label in reversed(labelled):
        label.draw(canvas, colors[i], scale, pen)
    return canvas


@dataclass(frozen=True)
class _Label:
    """A text on a filled rectangle; `height` is of the letters, `base` the room below them."""

    text: str
    left: int
    top: int
    width: int
    height: int
    base: int

    def hides(self, other: _Label) -> bool:
        """Whether the two rectangles overlap."""
        return (
            self.left < other.left + other.width
            and other.left < self.left + self.width
            and self.top < other.top + other.height + other.base
            and other.top < self.top + self.height + self.base
        )

    def draw(self, canvas: Image, color: tuple[int, int, int], scale: float, pen: int) -> None:
        """Draw it in black or white letters, as the colour is light or dark."""
        right, bottom = self.left + self.width, self.top + self.height + self.base
        cv2.rectangle(canvas, (self.left, self.top), (right, bottom), color, cv2.FILLED)
        light = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 140
        ink, origin = (0, 0, 0) if light else (255, 255, 255), (self.left, self.top + self.height)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(canvas, self.text, origin, font, scale, ink, pen, cv2.LINE_AA)


def collage(pictures: Sequence[Image], columns: int, height: int | None = None) -> Image:
    """Scale pictures to one height and put them in rows. Shorter rows end in black.

    Args:
        pictures: each (H, W, 3) uint8 BGR, at least one.
        columns: how many pictures a row has.
        height: of each row, in pixels; None takes the height of the first picture.
    """
    height = height or pictures[0].shape[0]
    fitted = [
        p
        if p.shape[0] == height
        else np.asarray(cv2.resize(p, (round(p.shape[1] * height / p.shape[0]), height)), np.uint8)
        for p in pictures
    ]
    rows = [np.hstack(fitted[i : i + columns]) for i in range(0, len(fitted), columns)]
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def write_jpeg(path: Path, picture: Image) -> None:
    """Write a picture (H, W, 3) uint8 BGR. The file gets its name when it is complete."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
