"""COCO's figures by pycocotools: twelve, and AP by class."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from retinart.engine.errors import MissingDependency
from retinart.engine.evaluation.coco import CocoDataset
from retinart.engine.evaluation.document import Id

# The twelve figures in the order of pycocotools' `stats`
FIGURES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


def coco_figures(
    dataset: CocoDataset, results: Iterable[Mapping[str, Any]], image_ids: Sequence[Id]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """The twelve figures and AP by class, for COCO results on these images of a dataset.

    Inside, images and categories have the numbers of their order, for pycocotools knows no ids of
    two types. The order decides between equal scores, so it is the order of the ids.
    """
    COCO, COCOeval = load_pycocotools()
    order = sorted((image.image_id for image in dataset.images), key=_sorted_as)
    images = {image_id: i for i, image_id in enumerate(order, 1)}
    categories = {category_id: i for i, category_id in enumerate(dataset.category_ids, 1)}
    rows = [
        (images[r["image_id"]], *r["bbox"], r["score"], categories[r["category_id"]])
        for r in results
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints to stdout
        truth = COCO()
        truth.dataset = _truth(dataset, images)
        truth.createIndex()
        found = truth.loadRes(np.array(rows, np.float64)) if rows else COCO()
        if not rows:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        run = COCOeval(truth, found, "bbox")
        run.params.imgIds = [images[image_id] for image_id in image_ids]
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][:, :, :, 0, -1]  # IoU x recall x class
    per_class = {name: _mean(precision[:, :, k]) for k, name in enumerate(dataset.classes)}
    stats = {n: None if v < 0 else float(v) for n, v in zip(FIGURES, run.stats, strict=True)}
    return stats, per_class


def load_pycocotools() -> tuple[Any, Any]:
    """The classes COCO and COCOeval of pycocotools.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingDependency.package("pycocotools", "eval", "COCO evaluation") from error
    return COCO, COCOeval


def _truth(dataset: CocoDataset, images: Mapping[Id, int]) -> dict[str, Any]:
    """The cleaned annotations as a COCO document, with numbers from 1 as ids."""
    annotations: list[dict[str, Any]] = []
    for image in dataset.images:
        truth = image.truth
        for box, label, crowd, area in zip(
            truth.xywh, truth.labels, truth.crowd, truth.areas, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # pycocotools never finds the annotation 0
                    "image_id": images[image.image_id],
                    "category_id": int(label) + 1,
                    "bbox": box.tolist(),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return {
        "info": {},
        "images": [
            {"id": images[i.image_id], "height": i.height, "width": i.width} for i in dataset.images
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(dataset.classes, 1)],
    }


def _sorted_as(image_id: Id) -> tuple[bool, Id]:
    return isinstance(image_id, str), image_id


def _mean(precision: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None
