"""Apply the rules of `Keep` to the detections of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections
from retinart.engine.keep.areas import Anchor, Areas
from retinart.engine.keep.rules import Keep, class_indices
from retinart.engine.media.images import Image
from retinart.engine.model.info import ModelInfo, Thresholds
from retinart.engine.runtime.nms import greedy_nms
from retinart.engine.runtime.runner import Floats, Prepared, Runner


class Keeper:
    """The rules for one model.

    Args:
        rules: what to keep.
        info: of the model.
        thresholds: those in force. Classes without a score of their own have `score_thresh`.

    Attributes:
        least: the lowest score that the runtime has to give.

    Raises:
        BadInput: the rules name a class that the model does not have.
    """

    def __init__(self, rules: Keep, info: ModelInfo, thresholds: Thresholds) -> None:
        self._rules, self._thresholds = rules, thresholds
        self._plus_one = info.variant.box_plus_one
        count = len(info.classes)
        self._wanted = np.zeros(count, np.bool_)
        self._wanted[class_indices(rules.classes, info.classes) if rules.classes else ...] = True
        self._score = np.full(count, thresholds.score_thresh, np.float32)
        for name, score in rules.conf.items():
            self._score[class_indices([name], info.classes)] = score
        self.least = min([thresholds.score_thresh, *rules.conf.values()])

    def __call__(self, found: Detections, size: tuple[int, int]) -> Detections:
        """The detections that are kept.

        Args:
            found: in pixels of an image.
            size: (height, width) of the image.
        """
        rules, boxes = self._rules, found.xyxy
        keep = self._wanted[found.class_id] & (found.confidence > self._score[found.class_id])
        keep &= (boxes[:, 2:] - boxes[:, :2] >= rules.min_size).all(axis=1)
        if rules.areas is not None and rules.regions:
            keep &= in_regions(boxes, rules.areas, size)
        found = found[keep]
        if rules.agnostic:
            same, t = np.zeros(len(found), np.intp), self._thresholds
            found = found[
                greedy_nms(found.xyxy, same, t.nms_thresh, len(found), plus_one=self._plus_one)
            ]
        return found


def in_regions(boxes: Floats, areas: Areas, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(M,) bool: whether each box lies where detections are kept.

    That is in one of the regions to keep inside of, if there are any, and in none of the others.
    """
    points, ratio = anchors_of(boxes, areas.anchor), scale_of(areas, size)
    inside = {r: contains(np.array(r.points) * ratio, points) for r in areas.regions}
    wanted = [hit for region, hit in inside.items() if region.keep == "inside"]
    keep = np.logical_or.reduce(wanted) if wanted else np.ones(len(boxes), np.bool_)
    for region, hit in inside.items():
        if region.keep == "outside":
            keep = keep & ~hit
    return np.asarray(keep, np.bool_)


def scale_of(areas: Areas, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(2,) factors from the points of areas to pixels of an image of size (height, width)."""
    return np.array([size[1] / areas.size[0], size[0] / areas.size[1]])


def anchors_of(boxes: Floats, anchor: Anchor) -> npt.NDArray[np.float64]:
    """(M, 2) x, y: the point that counts of each box (M, 4) xyxy."""
    x1, y1, x2, y2 = boxes.T.astype(np.float64)
    return np.stack([(x1 + x2) / 2, (y1 + y2) / 2 if anchor == "center" else y2], axis=1)


def contains(
    polygon: npt.NDArray[np.float64], points: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """(M,) bool: whether points (M, 2) lie in a polygon (P, 2), by the even-odd rule."""
    (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
    x, y = points[:, :1], points[:, 1:]
    above = (y1 > y) != (y2 > y)  # the sides that a ray to the right may meet
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
    return np.asarray((above & (x < at)).sum(axis=1) % 2 == 1, np.bool_)


class KeepingRunner:
    """A runner that gives the kept detections only; see `Runner`.

    Args:
        runner: what detects.
        keeper: what is kept.

    Attributes:
        inner: what detects.
    """

    def __init__(self, runner: Runner, keeper: Keeper) -> None:
        self.inner, self._keeper = runner, keeper
        self.name, self.info, self.thresholds = runner.name, runner.info, runner.thresholds
        self.identity, self.max_in_flight = runner.identity, runner.max_in_flight

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """See `Runner`."""
        return replace(self.inner.prepare(images), keep=self._keeper)

    def tensors(self, names: Sequence[str], frames: Image) -> dict[str, Floats] | None:
        """See `Runner`."""
        return self.inner.tensors(names, frames)

    def close(self) -> None:
        """See `Runner`."""
        self.inner.close()
