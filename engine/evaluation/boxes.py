"""Annotated boxes against their images: which are pixels, and which lie inside.

K  boxes of a file     xywh  left, top, width and height     size  height and width of a box's image
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.problems import Problems

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SLACK = 1.0  # pixels: a box that leaves its image by no more is not reported
_PERCENT_FROM = 200  # pixels of an image's side, from which on boxes below 100 are told from pixels
_FEW = 10  # boxes that say nothing about their unit
_MANY = 20  # boxes that would not all lie in one quarter of their images by chance
_FIX = "Write x, y, width and height of each box in pixels"
MISSED = "not learned; counted as missed in eval"


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanBoxes:
    """The boxes of a file.

    Attributes:
        xywh: (K, 4), with sides that are not negative.
        inside: (K, 4) xyxy, the part inside of the image.
        kept: (K,), false for a box that says nothing.
        learned: (K,), true where something of a kept box is inside.
    """

    xywh: Floats
    inside: Floats
    kept: Mask
    learned: Mask


def clean_boxes(
    xywh: Floats, size: Floats, names: Sequence[str], problems: Problems, path: Path
) -> CleanBoxes:
    """Sort corners, cut boxes at their images, and count what is wrong.

    Args:
        xywh: (K, 4), finite.
        size: (K, 2).
        names: of the annotations, for the examples.
        problems: is added to.
        path: of the file, for errors.

    Raises:
        BadInput: the boxes are not in pixels of their images, or are corners.
    """
    if not len(xywh):
        none = np.zeros(0, np.bool_)
        return CleanBoxes(xywh=xywh, inside=xywh, kept=none, learned=none)
    check_units(xywh, size, path)
    turned = (xywh[:, 2:] < 0).any(axis=1)
    xywh = with_positive_sides(xywh)
    corners = to_corners(xywh)
    limit = np.concatenate([size[:, ::-1], size[:, ::-1]], axis=1)
    inside = np.clip(corners, 0, limit)
    beyond = _beyond(corners, size)
    empty = (xywh[:, 2:] == 0).any(axis=1)
    outside = ~empty & (inside[:, 2:] <= inside[:, :2]).any(axis=1)
    wrong = turned & (beyond > SLACK)
    if too_many(int(wrong.sum()), len(xywh)):
        raise BadInput(
            f"{wrong.sum()} of the {len(xywh)} boxes of {path} have a negative side",
            why="from their x and y they point out of their image",
            fix=_FIX,
        )
    for mask, kind, effect in (
        (turned & ~wrong, "boxes with a negative side", "their corners are sorted"),
        (wrong, "boxes with a negative side that point out of their image", "dropped"),
        (empty & ~wrong, "zero-area boxes", MISSED),
        ((xywh[:, 2:] < 1).all(axis=1) & ~empty, "boxes smaller than a pixel", "kept"),
        (outside & ~wrong, "boxes outside of their image", MISSED),
        (
            (beyond > SLACK) & ~wrong & ~empty & ~outside,
            "boxes partly outside of their image",
            "clipped in training; as they are in eval",
        ),
    ):
        for k in np.flatnonzero(mask).tolist():
            problems.add(kind, effect, names[k])
    kept, learned = ~wrong, ~wrong & ~empty & ~outside
    note_small(inside[learned], size[learned], problems)
    return CleanBoxes(xywh=xywh, inside=inside, kept=kept, learned=learned)


def check_units(xywh: Floats, size: Floats, path: Path) -> None:
    """Refuse boxes that are shares, percent or corners, and boxes that fit no image.

    Args:
        xywh: (K, 4) as in the file.
        size: (K, 2).
        path: of the file, for the error.

    Raises:
        BadInput: with what the boxes seem to be.
    """
    what = f"the boxes of {path} are not x, y, width and height in pixels"
    shares = ((xywh >= 0) & (xywh <= 1)).all(axis=1)
    if shares.mean() > 0.5:
        why = f"{shares.sum()} of {len(xywh)} have no number above 1, as shares of the image"
        raise BadInput(what, why=why, fix=_FIX)
    tiny = ((np.abs(xywh[:, 2:]) < 1) & (xywh[:, 2:] != 0)).all(axis=1)
    if too_many(int(tiny.sum()), len(xywh)):
        why = f"{tiny.sum()} of {len(xywh)} are smaller than a pixel, as shares of the image"
        raise BadInput(what, why=why, fix=_FIX)
    corners = to_corners(xywh)
    if len(xywh) >= _FEW and size.min() >= _PERCENT_FROM:
        low, high = corners[:, :2].min(), corners[:, 2:].max(axis=0)
        if low >= 0 and high.max() <= 100.5 and high.min() > 75:
            why = f"all {len(xywh)} lie within 100 of the left and top, as percent of the image"
            raise BadInput(what, why=why, fix=_FIX)
    leave = _beyond(corners, size) > SLACK
    if leave.sum() >= 3 and leave.mean() >= 0.1:
        for name, read in _OTHER_FORMS.items():
            other = read(xywh)
            ordered = (other[:, 2:] >= other[:, :2]).all()
            if ordered and (_beyond(other, size) <= SLACK).all():
                why = f"{leave.sum()} of {len(xywh)} leave their image, and all fit as {name}"
                raise BadInput(what, why=why, fix=_FIX)
    misfit = _misfit(with_positive_sides(xywh), size)
    if misfit.mean() > 0.5:
        why = f"{misfit.sum()} of {len(xywh)} lie for the most part outside of their image"
        raise BadInput(what, why=why, fix=f"{_FIX} of the size that the images have")


def note_small(boxes: Floats, size: Floats, problems: Problems) -> None:
    """Count boxes that all lie in one quarter of their images, as boxes of smaller images do.

    Args:
        boxes: (K, 4) xyxy inside of their images.
        size: (K, 2).
        problems: is added to.
    """
    if len(boxes) >= _MANY and (boxes[:, 2:] <= size[:, ::-1] / 2).all():
        kind = "boxes, which is all, in the upper left quarter of their images"
        effect = "kept; check that they are not of images of half the size"
        for box in boxes:
            problems.add(kind, effect, f"({box[0]:g}, {box[1]:g}) to ({box[2]:g}, {box[3]:g})")


def too_many(unusable: int, total: int) -> bool:
    """Whether so much cannot be used that the rest says nothing: more than 2, and than a tenth."""
    return unusable > max(2, total / 10)


def to_corners(xywh: Floats) -> Floats:
    """(K, 4) xyxy."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def with_positive_sides(xywh: Floats) -> Floats:
    """The same rectangles, each from its left and top."""
    return np.concatenate([xywh[:, :2] + np.minimum(xywh[:, 2:], 0), np.abs(xywh[:, 2:])], axis=1)


def leaves(xywh: Floats, size: Floats) -> Mask:
    """(K,) whether a box leaves an image of this size by more than a pixel."""
    return np.asarray(_beyond(to_corners(with_positive_sides(xywh)), size) > SLACK)


def _beyond(corners: Floats, size: Floats) -> Floats:
    """(K,) pixels by which a box leaves its image."""
    return np.asarray(np.maximum(-corners[:, :2], corners[:, 2:] - size[:, ::-1]).max(axis=1))


def _misfit(xywh: Floats, size: Floats) -> Mask:
    """(K,) whether less than half of a box's area is inside of its image."""
    corners = to_corners(xywh)
    limit = size[:, ::-1]
    sides = np.minimum(corners[:, 2:], limit) - np.maximum(corners[:, :2], 0)
    return np.asarray(np.maximum(sides, 0).prod(axis=1) < 0.5 * xywh[:, 2:].prod(axis=1))


def _from_centre(box: Floats) -> Floats:
    half = box[:, 2:] / 2
    return np.concatenate([box[:, :2] - half, box[:, :2] + half], axis=1)


# Each gives corners (K, 4) xyxy
_OTHER_FORMS: dict[str, Callable[[Floats], Floats]] = {
    "the corners x1, y1, x2 and y2": lambda box: box,
    "the corners y1, x1, y2 and x2": lambda box: box[:, [1, 0, 3, 2]],
    "the centre with width and height": _from_centre,
    "y, x, height and width": lambda box: to_corners(box[:, [1, 0, 3, 2]]),
}
