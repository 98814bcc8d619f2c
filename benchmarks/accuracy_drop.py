"""Two model files on the same annotated images: what does the second lose, and where?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from retinart.engine.common.files import atomic_path
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.coco import CocoImage, load_coco
from retinart.engine.evaluation.evaluate import Evaluation, class_key, evaluate, points
from retinart.engine.evaluation.matching import box_iou
from retinart.engine.job.draw import draw
from retinart.engine.media.images import Image, read_image

CONFIDENCE = 0.3  # below it nothing counts as found in a single image, nor is it drawn
IOU = 0.5


@dataclass(frozen=True, kw_only=True)
class ImageLoss:
    """How two models compare on one image, at a confidence of 0.3 and an IoU of 0.5.

    Attributes:
        image: it and its objects.
        hits: objects that each of the two found.
        false: detections of each that are none of the objects.
    """

    image: CocoImage
    hits: tuple[int, int]
    false: tuple[int, int]

    @property
    def loss(self) -> int:
        """Objects that the second lost, and false detections that it made, in number."""
        return (self.hits[0] - self.hits[1]) + (self.false[1] - self.false[0])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The second model against the first.

    Attributes:
        names: of the two files.
        first, second: what each reaches.
        drop: AP points that the second loses.
        worst: the images with the largest loss, of those with any, the worst first.
        outputs: files that were written.
    """

    names: tuple[str, str]
    first: Evaluation
    second: Evaluation
    drop: float
    worst: tuple[ImageLoss, ...]
    outputs: tuple[Path, ...]


def compare(
    first: Detector,
    second: Detector,
    annotations: Path,
    images: Path,
    *,
    out: Path,
    names: tuple[str, str],
    worst: int = 8,
) -> Comparison:
    """Evaluate both models and write `comparison.json` and pictures of the worst images.

    Args:
        first: the reference.
        second: the model in question.
        annotations: a COCO instances file.
        images: the folder of its images.
        out: folder to write to.
        names: what to call the two.
        worst: how many pictures at most.

    Raises:
        BadInput: as `evaluate`.
    """
    results = [evaluate(detector, annotations, images) for detector in (first, second)]
    dataset = load_coco(annotations, images)
    losses = []
    for image in dataset.images:
        if not all(image.image_id in result.found for result in results):
            continue
        counts = [
            count(image, dataset.classes, result.found[image.image_id], detector.classes)
            for result, detector in zip(results, (first, second), strict=True)
        ]
        hits, false = zip(*counts, strict=True)
        losses.append(ImageLoss(image=image, hits=hits, false=false))
    losses.sort(key=lambda loss: -loss.loss)
    shown = tuple(loss for loss in losses[:worst] if loss.loss > 0)
    outputs = []
    for number, loss in enumerate(shown, 1):
        panels = [(names[i], results[i], d.classes) for i, d in enumerate((first, second))]
        outputs.append(out / f"worst-{number}-{loss.image.path.stem}.jpg")
        with atomic_path(outputs[-1]) as temporary:
            cv2.imwrite(str(temporary), _picture(loss, dataset.classes, panels))
    drop = 100 * ((results[0].figures["AP"] or 0.0) - (results[1].figures["AP"] or 0.0))
    comparison = Comparison(
        names=names,
        first=results[0],
        second=results[1],
        drop=drop,
        worst=shown,
        outputs=(*outputs, out / "comparison.json"),
    )
    with atomic_path(comparison.outputs[-1]) as temporary:
        temporary.write_text(json.dumps(to_json(comparison), indent=1), encoding="utf-8")
    return comparison


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Plain JSON types."""
    return {
        "names": comparison.names,
        "first": comparison.first.to_json(),
        "second": comparison.second.to_json(),
        "drop": comparison.drop,
        "worst": [
            {"image": str(w.image.path), "hits": w.hits, "false": w.false, "loss": w.loss}
            for w in comparison.worst
        ],
    }


def table(comparison: Comparison) -> str:
    """Side by side in AP points, the classes with the largest loss first."""
    a, b = comparison.first, comparison.second
    rows = [(name, a.figures[name], b.figures[name]) for name in a.figures]
    classes = [(f"  {name}", ap, b.per_class[name]) for name, ap in a.per_class.items()]
    classes.sort(key=lambda row: (row[2] or 0.0) - (row[1] or 0.0))
    width = max(len(row[0]) for row in [*rows, *classes])
    columns = [max(5, len(name)) for name in comparison.names]

    def line(name: str, *cells: str) -> str:
        return f"{name:<{width}}  " + "  ".join(
            f"{cell:>{size}}" for cell, size in zip(cells, [*columns, 6], strict=True)
        )

    def row(name: str, x: float | None, y: float | None) -> str:
        change = "" if x is None or y is None else f"{100 * (y - x):+6.1f}"
        return line(name, points(x), points(y), change)

    return "\n".join(
        [
            line("", *comparison.names, "change"),
            *(row(*r) for r in rows),
            f"AP by class ({a.images} images)",
            *(row(*r) for r in classes),
        ]
    )


def count(
    image: CocoImage, truth: Sequence[str], found: Detections, classes: Sequence[str]
) -> tuple[int, int]:
    """Objects found and false detections; crowds, and what lies on them, count as neither."""
    sure = found.confidence >= CONFIDENCE
    boxes, labels = found.xyxy[sure], found.class_id[sure]
    overlap = box_iou(boxes, image.boxes)  # (found, objects)
    same = np.array(
        [[class_key(classes[d]) == class_key(truth[t]) for t in image.labels] for d in labels],
        np.bool_,
    ).reshape(overlap.shape)
    overlap = np.where(same, overlap, 0.0)
    free: npt.NDArray[np.bool_] = ~image.crowd
    hits = false = 0
    for row in overlap:  # the surest first
        possible = np.where(free, row, 0.0)
        if possible.size and possible.max() >= IOU:
            free[int(possible.argmax())] = False
            hits += 1
        else:
            false += not (row[image.crowd] > 0).any()
    return hits, false


def _picture(
    loss: ImageLoss,
    classes: Sequence[str],
    panels: Sequence[tuple[str, Evaluation, Sequence[str]]],
) -> Image:
    """Annotated objects and both models' detections, side by side, each under its title."""
    image = read_image(loss.image.path)
    size = (loss.image.width, loss.image.height)
    image = np.asarray(cv2.resize(image, size), np.uint8)
    kept = ~loss.image.crowd
    truth = Detections(
        xyxy=loss.image.boxes[kept],
        confidence=np.ones(int(kept.sum()), np.float32),
        class_id=loss.image.labels[kept].astype(np.int32),
    )
    pictures = [_titled(draw(image, truth, classes), f"annotated: {len(truth)}")]
    for i, (name, result, names) in enumerate(panels):
        title = f"{name}: {loss.hits[i]} found, {loss.false[i]} false"
        sure = result.found[loss.image.image_id]
        sure = sure[sure.confidence >= CONFIDENCE]
        pictures.append(_titled(draw(image, sure, names), title))
    return np.hstack(pictures)


def _titled(image: Image, title: str) -> Image:
    scale = max(0.4, image.shape[1] / 900)
    height = int(40 * scale)
    band = np.full((height, image.shape[1], 3), 255, np.uint8)
    cv2.putText(
        band, title, (4, height - int(12 * scale)), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0),
        max(1, round(scale)), cv2.LINE_AA,
    )  # fmt: skip
    return np.vstack([band, image])
