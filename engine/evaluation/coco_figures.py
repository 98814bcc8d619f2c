"""COCO's figures by pycocotools: twelve, AP by class, and the matches that they are made of."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinart.engine.errors import MissingDependency
from retinart.engine.evaluation.coco import CocoDataset
from retinart.engine.evaluation.coco_json import Id
from retinart.engine.evaluation.resample import SIZES, Curves, Matches, curves_of

# The twelve figures in the order of pycocotools' `stats`
FIGURES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoFigures:
    """What pycocotools says.

    Attributes:
        figures: the twelve by name, 0 to 1; None for a size without objects.
        per_class: AP by class; None for a class without objects.
        matches: which detections match objects, the pictures in the order of their ids.
    """

    figures: dict[str, float | None]
    per_class: dict[str, float | None]
    matches: Matches


def coco_figures(
    dataset: CocoDataset, results: Iterable[Mapping[str, Any]], image_ids: Sequence[Id]
) -> CocoFigures:
    """Evaluate COCO results on these images of a dataset.

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
    return CocoFigures(figures=stats, per_class=per_class, matches=_matches(run, dataset.classes))


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


def _matches(run: Any, classes: Sequence[str]) -> Matches:
    """What a finished run of pycocotools matched, without its boxes."""
    pictures = len(run.params.imgIds)
    each = [run.evalImgs[k : k + pictures] for k in range(0, len(run.evalImgs), pictures)]
    curves = [_curves(one, len(run.params.iouThrs)) for one in each]
    count = len(SIZES)
    return Matches(
        images=tuple(map(int, run.params.imgIds)),
        classes=tuple(classes),
        curves=tuple(tuple(curves[k : k + count]) for k in range(0, len(curves), count)),
    )


def _curves(pictures: Sequence[Mapping[str, Any] | None], thresholds: int) -> Curves:
    """One class and range of sizes, from pycocotools' record of each picture, or None."""
    here = [(k, found) for k, found in enumerate(pictures) if found is not None]
    image = np.repeat([k for k, _ in here], [len(f["dtScores"]) for _, f in here]).astype(np.int32)
    score = np.array([score for _, found in here for score in found["dtScores"]], np.float64)
    order = np.argsort(-score, kind="stable")  # equal scores stay in the order of the pictures
    none = [np.zeros((thresholds, 0), np.bool_)]
    matched = np.concatenate(none + [found["dtMatches"] != 0 for _, found in here], axis=1)
    ignored = np.concatenate(none + [found["dtIgnore"] != 0 for _, found in here], axis=1)
    objects = [np.full(int((np.asarray(f["gtIgnore"]) == 0).sum()), k, np.int32) for k, f in here]
    return curves_of(
        image[order],
        score[order],
        matched[:, order],
        ignored[:, order],
        np.concatenate([np.zeros(0, np.int32), *objects]),
    )


def _sorted_as(image_id: Id) -> tuple[bool, Id]:
    return isinstance(image_id, str), image_id


def _mean(precision: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None
