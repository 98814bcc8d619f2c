"""COCO's figures by pycocotools: twelve, AP by class, and the matches that they are made of."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import MissingDependency
from retinart.engine.evaluation.coco import CocoDataset, CocoImage
from retinart.engine.evaluation.coco_json import Id
from retinart.engine.evaluation.resample import SIZES, Curves, Matches, curves_of

# The twelve figures in the order of pycocotools' `stats`
FIGURES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip

_TOGETHER = 100  # images that pycocotools matches at a time
# pycocotools' record of a class and a range of sizes in an image; None if neither has any
_Record = dict[str, npt.NDArray[Any]] | None


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
    two types. The order decides between equal scores, so it is the order of the ids. pycocotools
    matches some images at a time: it keeps 0.2 MB for each image with 100 detections.
    """
    _, COCOeval = load_pycocotools()
    order = sorted((image.image_id for image in dataset.images), key=_sorted_as)
    numbers = {image_id: i for i, image_id in enumerate(order, 1)}
    categories = {category_id: i for i, category_id in enumerate(dataset.category_ids, 1)}
    rows = (
        (numbers[r["image_id"]], *r["bbox"], r["score"], categories[r["category_id"]])
        for r in results
    )
    found: npt.NDArray[np.float64] = np.fromiter(rows, np.dtype((np.float64, 7)))
    images = {numbers[image.image_id]: image for image in dataset.images}
    wanted = sorted({numbers[image_id] for image_id in image_ids})
    whole = COCOeval(iouType="bbox")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints to stdout
        parts = []
        for k in range(0, len(wanted), _TOGETHER):
            here = {number: images[number] for number in wanted[k : k + _TOGETHER]}
            parts.append(_match(here, dataset.classes, found[np.isin(found[:, 0], list(here))]))
        records = _joined(parts, len(categories) * len(SIZES))
        whole.params.imgIds, whole.params.catIds = wanted, list(categories.values())
        whole._paramsEval, whole.evalImgs = whole.params, records
        whole.accumulate()
        whole.summarize()
    precision = whole.eval["precision"][:, :, :, 0, -1]  # IoU x recall x class
    per_class = {name: _mean(precision[:, :, k]) for k, name in enumerate(dataset.classes)}
    stats = {n: None if v < 0 else float(v) for n, v in zip(FIGURES, whole.stats, strict=True)}
    return CocoFigures(figures=stats, per_class=per_class, matches=_matches(whole, dataset.classes))


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


def _truth(images: Mapping[int, CocoImage], classes: Sequence[str]) -> dict[str, Any]:
    """The cleaned annotations of images as a COCO document, with numbers from 1 as ids."""
    annotations: list[dict[str, Any]] = []
    for number, image in images.items():
        truth = image.truth
        for box, label, crowd, area in zip(
            truth.xywh, truth.labels, truth.crowd, truth.areas, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # pycocotools never finds the annotation 0
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": box.tolist(),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return {
        "info": {},
        "images": [{"id": k, "height": i.height, "width": i.width} for k, i in images.items()],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
    }


def _match(
    images: Mapping[int, CocoImage], classes: Sequence[str], found: npt.NDArray[np.float64]
) -> list[_Record]:
    """What pycocotools matches in some images, without all that its sums do not need.

    Args:
        images: by number.
        classes: of the annotations.
        found: (N, 7) detections: image, x, y, width, height, score, category.
    """
    COCO, COCOeval = load_pycocotools()
    truth, detected = COCO(), COCO()
    truth.dataset = _truth(images, classes)
    truth.createIndex()
    if len(found):
        detected = truth.loadRes(found)
    else:
        detected.dataset = {**truth.dataset, "annotations": []}
        detected.createIndex()
    run = COCOeval(truth, detected, "bbox")
    run.evaluate()
    return [
        None
        if one is None
        else {
            "dtScores": np.array(one["dtScores"], np.float64),
            "dtMatches": one["dtMatches"] != 0,
            "dtIgnore": one["dtIgnore"] != 0,
            "gtIgnore": np.array(one["gtIgnore"], np.bool_),
        }
        for one in run.evalImgs
    ]


def _joined(parts: Sequence[Sequence[_Record]], series: int) -> list[_Record]:
    """The records of all images in pycocotools' order: by class, then by size, then by image.

    Args:
        parts: the records of some images each.
        series: classes times sizes.
    """
    each = [(part, len(part) // series) for part in parts]
    return [one for k in range(series) for part, n in each for one in part[k * n : (k + 1) * n]]


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


def _curves(pictures: Sequence[_Record], thresholds: int) -> Curves:
    """One class and range of sizes."""
    here = [(k, found) for k, found in enumerate(pictures) if found is not None]
    image = np.repeat([k for k, _ in here], [len(f["dtScores"]) for _, f in here]).astype(np.int32)
    score = np.concatenate([np.zeros(0), *(found["dtScores"] for _, found in here)])
    order = np.argsort(-score, kind="stable")  # equal scores stay in the order of the pictures
    none = [np.zeros((thresholds, 0), np.bool_)]
    matched = np.concatenate(none + [found["dtMatches"] for _, found in here], axis=1)
    ignored = np.concatenate(none + [found["dtIgnore"] for _, found in here], axis=1)
    objects = [np.full(int((~found["gtIgnore"]).sum()), k, np.int32) for k, found in here]
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
