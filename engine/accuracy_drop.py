"""Two model files on the same annotated images: what does the second lose, and where?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from retinart.engine.common.files import write_json
from retinart.engine.common.table import Table
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.class_names import class_key
from retinart.engine.evaluation.coco import CocoImage, load_coco
from retinart.engine.evaluation.evaluate import Evaluation, counted, evaluate, points
from retinart.engine.evaluation.gate import Change
from retinart.engine.evaluation.matching import Tolerance, box_iou, pair
from retinart.engine.evaluation.paired import RESAMPLES, Changes, paired_changes
from retinart.engine.job.draw import collage, draw, write_jpeg
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
        """The number of objects that the second lost, and of false detections that it added."""
        return (self.hits[0] - self.hits[1]) + (self.false[1] - self.false[0])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The second model against the first.

    Attributes:
        names: of the two files.
        first, second: what each reaches.
        drop: AP points that the second loses.
        changes: what the second changes, with 95% intervals.
        worst: the images with the largest loss, of those with any, the worst first.
        outputs: files that were written.
    """

    names: tuple[str, str]
    first: Evaluation
    second: Evaluation
    drop: float
    changes: Changes
    worst: tuple[ImageLoss, ...]
    outputs: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types. The models' figures are 0 to 1."""
        return {
            "names": self.names,
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "drop_points": self.drop,
            "changes_points": {
                "resamples": RESAMPLES,
                "figures": {n: vars(c) for n, c in self.changes.figures.items()},
                "per_class": {n: vars(c) for n, c in self.changes.per_class.items()},
                "recall": {n: vars(c) for n, c in self.changes.recall.items()},
            },
            "worst": [
                {"image": str(w.image.path), "hits": w.hits, "false": w.false, "loss": w.loss}
                for w in self.worst
            ],
        }


def compare_models(
    first: Detector,
    second: Detector,
    annotations: Path,
    images: Path,
    *,
    out: Path,
    names: tuple[str, str],
    worst: int = 8,
    precision: float | None = None,
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
        precision: 0 to 1, at which recall is compared; None compares none.

    Raises:
        BadInput: as `evaluate`.
    """
    results = [evaluate(detector, annotations, images) for detector in (first, second)]
    dataset, losses = load_coco(annotations, images), []
    for image in dataset.images:
        if all(image.image_id in result.found for result in results):
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
        write_jpeg(outputs[-1], _picture(loss, dataset.classes, panels))
    comparison = Comparison(
        names=names,
        first=results[0],
        second=results[1],
        drop=100 * (results[0].ap - results[1].ap),
        changes=paired_changes(results[0].matches, results[1].matches, precision=precision),
        worst=shown,
        outputs=(*outputs, out / "comparison.json"),
    )
    write_json(comparison.outputs[-1], comparison.to_json(), indent=1)
    return comparison


def change_text(change: Change, noun: str = "AP") -> str:
    """What a change is, in words, with its interval."""
    value = change.value
    words = f"{'loses' if value < 0 else 'gains'} {abs(value):.2f} {noun}"
    if abs(value) < 0.005:  # which would be printed as 0.00
        words = f"has the same {noun}"
    return f"{words} (95% interval of the change {change.interval})"


def points_gained(before: float, after: float) -> str:
    """A change of a share, in points; one that rounds to zero has no minus."""
    return f"{100 * (after - before):+.1f}".replace("-0.0", "+0.0")


def drop_table(comparison: Comparison) -> str:
    """Side by side in AP points, the classes with the largest loss first."""
    a, b = comparison.first, comparison.second

    changes = comparison.changes

    def row(name: str, x: float | None, y: float | None, sure: Change | None) -> tuple[str, ...]:
        change = "" if x is None or y is None else points_gained(x, y)
        return name, points(x), points(y), change, "" if sure is None else sure.interval

    rows = [row(n, x, b.figures[n], changes.figures.get(n)) for n, x in a.figures.items()]
    both = {name: (ap, b.per_class.get(name)) for name, ap in a.per_class.items()}
    rows.append((f"AP by class ({counted(a)})", "", "", "", ""))
    for name, (x, y) in sorted(both.items(), key=lambda item: _gain(*item[1])):
        rows.append(row(f"  {name}", x, y, changes.per_class.get(name)))
    return Table(head=("", *comparison.names, "change", "95% interval"), rows=rows).text()


def _gain(before: float | None, after: float | None) -> float:
    """What a class gained; those without AP in either come last."""
    return math.inf if before is None or after is None else after - before


def count(
    image: CocoImage, truth: Sequence[str], found: Detections, classes: Sequence[str]
) -> tuple[int, int]:
    """Objects found and false detections; crowds, and what lies on them, count as neither."""
    index = {class_key(name): i for i, name in enumerate(truth)}  # one number for each name
    sure = _renumbered(found[found.confidence >= CONFIDENCE], classes, index)
    objects, crowds = (
        _renumbered(_objects(image, chosen), truth, index) for chosen in (~image.crowd, image.crowd)
    )
    hits = pair(objects, sure, Tolerance(iou=IOU))
    on_crowd = box_iou(sure.xyxy, crowds.xyxy) > 0
    on_crowd &= sure.class_id[:, None] == crowds.class_id
    false = set(range(len(sure))) - {j for _, j in hits} - set(np.flatnonzero(on_crowd.any(axis=1)))
    return len(hits), len(false)


def _renumbered(d: Detections, classes: Sequence[str], index: dict[str, int]) -> Detections:
    """Detections whose classes have the numbers of their names; -1 for other names."""
    labels = [index.get(class_key(classes[label]), -1) for label in d.class_id]
    return replace(d, class_id=np.array(labels, np.int32))


def _objects(image: CocoImage, chosen: npt.NDArray[np.bool_]) -> Detections:
    """Some objects of an image, as detections."""
    return Detections(
        xyxy=image.boxes[chosen],
        confidence=np.ones(int(chosen.sum()), np.float32),
        class_id=image.labels[chosen].astype(np.int32),
    )


def _picture(
    loss: ImageLoss,
    classes: Sequence[str],
    panels: Sequence[tuple[str, Evaluation, Sequence[str]]],
) -> Image:
    """Annotated objects and both models' detections, side by side, each under its title."""
    size, objects = (loss.image.width, loss.image.height), _objects(loss.image, ~loss.image.crowd)
    image = np.asarray(cv2.resize(read_image(loss.image.path), size), np.uint8)
    pictures = [_titled(draw(image, objects, classes), f"annotated: {len(objects)}")]
    for i, (name, result, names) in enumerate(panels):
        title = f"{name}: {loss.hits[i]} found, {loss.false[i]} false"
        found = result.found[loss.image.image_id]
        sure = found[found.confidence >= CONFIDENCE]
        pictures.append(_titled(draw(image, sure, names), title))
    return collage(pictures, columns=len(pictures))


def _titled(image: Image, title: str) -> Image:
    scale = max(0.4, image.shape[1] / 900)
    height = int(40 * scale)
    band = np.full((height, image.shape[1], 3), 255, np.uint8)
    cv2.putText(
        band, title, (4, height - int(12 * scale)), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0),
        max(1, round(scale)), cv2.LINE_AA,
    )  # fmt: skip
    return np.vstack([band, image])
