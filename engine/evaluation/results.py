"""Detections as COCO results, which pycocotools takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retinart.engine.detections import Detections
from retinart.engine.evaluation.coco_json import Id


def coco_result(
    image_id: Id, category_id: Id, box: Sequence[float], score: float
) -> dict[str, Any]:
    """One entry of a COCO results list. The box comes as xyxy and leaves as x, y, width, height.

    Nothing is rounded. That would change the figures: scores become equal, and overlaps pass a
    threshold.
    """
    x1, y1, x2, y2 = map(float, box)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": float(score),
    }


def coco_results(
    image_id: Id, found: Detections, category: Mapping[int, Id]
) -> Iterator[dict[str, Any]]:
    """The entries of an image.

    Args:
        image_id: of the image.
        found: xyxy in pixels of the annotations.
        category: the id of each class index; detections of other classes are left out.
    """
    for box, score, label in found:
        if label in category:
            yield coco_result(image_id, category[label], box.tolist(), score)
