"""A report on a dataset: its content, and how well a model's anchors fit its boxes.

M  boxes of all images
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from retinart.engine.common.table import Table
from retinart.engine.evaluation.coco import CocoDataset
from retinart.engine.model.levels import grid_sizes
from retinart.engine.model.variant import Variant
from retinart.train.data.rule import training_rule
from retinart.train.model.anchors import base_anchors, level_strides

Floats = npt.NDArray[np.float32]
COVERED = 0.5  # IoU with an anchor from which on the anchor learns a box
_BOUNDS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
_PERCENTS = (0, 5, 25, 50, 75, 95, 100)


def describe_dataset(
    dataset: CocoDataset, variant: Variant, size: tuple[int, int]
) -> dict[str, Any]:
    """Counts by class, sizes, and the anchors' coverage, in plain JSON types.

    Crowds are counted on their own, and left out of all other figures. Sides are square roots of
    areas.

    Args:
        dataset: with at least one object.
        variant: the model whose anchors are tried.
        size: (height, width) of the network input.
    """
    images = dataset.images
    boxes = np.concatenate([image.boxes[~image.crowd] for image in images])
    areas = np.concatenate([image.areas[~image.crowd] for image in images])
    labels = np.concatenate([image.labels[~image.crowd] for image in images])
    at_input = np.concatenate(_at_input(dataset, variant, size))
    best = best_anchor_iou(at_input, variant, size)
    groups = {n: (areas >= low) & (areas < high) for n, (low, high) in _BOUNDS.items()}
    return {
        "images": len(images),
        "images_without_objects": sum(not len(image.boxes) for image in images),
        "boxes": len(boxes),
        "crowds": int(sum(image.crowd.sum() for image in images)),
        "classes": [
            {
                "name": name,
                "boxes": int((labels == k).sum()),
                "images": sum(bool((i.labels[~i.crowd] == k).any()) for i in images),
                "covered": _share(best[labels == k]),
            }
            for k, name in enumerate(dataset.classes)
        ],
        "sizes": {name: int(group.sum()) for name, group in groups.items()},
        "side": _percentiles(np.sqrt(_area(boxes))),
        "side_at_input": _percentiles(np.sqrt(_area(at_input))),
        "height_over_width": _percentiles(
            (boxes[:, 3] - boxes[:, 1]) / (boxes[:, 2] - boxes[:, 0])
        ),
        "anchors": {
            "backbone": variant.backbone,
            "input": list(size),
            "covered": _share(best),
            "covered_by_size": {name: _share(best[group]) for name, group in groups.items()},
            "mean_best_iou": round(float(best.mean()), 4),
            "smallest_side": round(min(min(level) for level in variant.anchor_sizes), 2),
        },
        "problems": [asdict(problem) for problem in dataset.problems],
    }


def best_anchor_iou(boxes: Floats, variant: Variant, size: tuple[int, int]) -> Floats:
    """The IoU of each box with the anchor that fits it best, among all anchors of an input.

    The best position of an anchor's shape is the one nearest to the box in x and in y, so one
    anchor of each shape is enough.

    Args:
        boxes: (M, 4) xyxy in pixels of the network input.
        size: (height, width) of it.

    Returns:
        (M,) float32.
    """
    x1, y1, x2, y2 = boxes.T
    best = np.zeros(len(boxes), np.float32)
    grids = grid_sizes(*size)
    strides = level_strides(size, grids, variant.anchor_strides)
    for sizes, grid, stride in zip(variant.anchor_sizes, grids, strides, strict=True):
        for left, top, right, bottom in base_anchors(
            sizes,
            variant.anchor_ratios,
            order=variant.anchor_order,
            rounding=variant.anchor_rounding,
        ):
            y = _nearest((y1 + y2 - top - bottom) / 2, grid[0], stride[0], variant.anchor_center)
            x = _nearest((x1 + x2 - left - right) / 2, grid[1], stride[1], variant.anchor_center)
            w = np.minimum(x2, x + right) - np.maximum(x1, x + left)
            h = np.minimum(y2, y + bottom) - np.maximum(y1, y + top)
            inter = np.maximum(w, 0) * np.maximum(h, 0)
            union = _area(boxes) + (right - left) * (bottom - top) - inter
            best = np.maximum(best, inter / union)
    return best


def dataset_table(report: Mapping[str, Any]) -> str:
    """The report for people."""
    total, anchors = report["boxes"], report["anchors"]
    height, width = anchors["input"]
    classes = Table(
        head=("class", "boxes", "images", "covered"),
        rows=[
            (entry["name"], entry["boxes"], entry["images"], _percent(entry["covered"]))
            for entry in sorted(report["classes"], key=lambda entry: -entry["boxes"])
        ],
    )
    covered = anchors["covered_by_size"]
    sizes = Table(
        head=("size", "boxes", "share", "covered"),
        rows=[
            (name, count, _percent(count / total), _percent(covered[name]))
            for name, count in report["sizes"].items()
        ],
    )
    sides = Table(
        head=("", *report["side"]),
        rows=[
            _row("side, px of the image", report["side"]),
            _row(f"side, px at {height}x{width}", report["side_at_input"]),
            _row("height over width", report["height_over_width"]),
        ],
    )
    return (
        f"{classes.text()}\n\n{sizes.text()}\n\n{sides.text()}\n\n"
        f"{_percent(anchors['covered'])} of the boxes have an anchor of {anchors['backbone']} at "
        f"{height}x{width} with an IoU of {COVERED} or more; the mean of the best is "
        f"{anchors['mean_best_iou']:.2f}; the smallest anchor's side is "
        f"{anchors['smallest_side']:g} px"
    )


def _at_input(dataset: CocoDataset, variant: Variant, size: tuple[int, int]) -> Sequence[Floats]:
    """The boxes of each image without crowds, (m, 4) xyxy in pixels of the network input."""
    rule = training_rule(variant, size)
    found = []
    for image in dataset.images:
        height, width = rule.fit(image.height, image.width)
        ratio = np.array([width / image.width, height / image.height] * 2, np.float32)
        found.append(image.boxes[~image.crowd] * ratio)
    return found


def _nearest(position: Floats, count: int, stride: int, center: float) -> Floats:
    """The grid's centre that is nearest to each position."""
    index = np.clip(np.rint(position / stride - center), 0, count - 1)
    return ((index + center) * stride).astype(np.float32)


def _area(boxes: Floats) -> Floats:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _percentiles(values: Floats) -> dict[str, float]:
    names = ("min", *(f"{p}%" for p in _PERCENTS[1:-1]), "max")
    found = np.percentile(values, _PERCENTS)
    return {name: round(float(v), 3) for name, v in zip(names, found, strict=True)}


def _share(best: Floats) -> float | None:
    return round(float((best >= COVERED).mean()), 4) if len(best) else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _row(name: str, values: Mapping[str, float]) -> tuple[str, ...]:
    return name, *(f"{v:.1f}" if v >= 10 else f"{v:.2f}" for v in values.values())
