"""Draw detections on a picture, and put pictures side by side."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from retinart.engine.common.files import atomic_path
from retinart.engine.detections import Detections
from retinart.engine.job.labels import Label, Style, draw_legend, place_labels
from retinart.engine.media.images import Image

_FEW_CLASSES = 4  # in a picture; more get a legend


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
        (H, W, 3) uint8 BGR. Every label lies inside the picture, and none hides another one; see
        `place_labels`. With more than four classes a legend names them. It is left out where the
        colours are of tracked objects.
    """
    canvas, style = image.copy(), Style.of(image)
    height, width = image.shape[:2]
    line = max(1, round(min(height, width) / 320))
    boxes = detections.xyxy.round().astype(int).tolist()
    labels, scores = detections.class_id.tolist(), detections.confidence.tolist()
    ids = [-1] * len(detections)
    if detections.tracker_id is not None:
        ids = detections.tracker_id.tolist()
    # of tracked objects, the colour follows one through the frames
    colors = [class_color(labels[i] if ids[i] < 0 else ids[i]) for i in range(len(ids))]
    for i in reversed(range(len(detections))):  # the best last, on top
        cv2.rectangle(canvas, boxes[i][:2], boxes[i][2:], colors[i], line)
    shown, legend = sorted(set(labels)), list[Label]()
    if len(shown) > _FEW_CLASSES and detections.tracker_id is None:
        legend = draw_legend(canvas, [(classes[k], class_color(k)) for k in shown], boxes, style)
    texts = [_texts(classes[labels[i]], scores[i], ids[i]) for i in range(len(ids))]
    placed = place_labels(boxes, texts, (height, width), style, legend)
    for label, color in reversed(list(zip(placed, colors, strict=True))):
        if label is not None:
            label.draw(canvas, color, style)
    return canvas


def _texts(name: str, score: float, track: int) -> list[str]:
    """What a label says, and what it says where there is little room."""
    if track >= 0:
        return [f"#{track} {name} {score:.2f}", f"#{track}"]
    return [f"{name} {score:.2f}", f"{score:.2f}"]


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
