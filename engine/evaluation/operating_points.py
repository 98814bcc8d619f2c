"""Precision, recall and F1 at every confidence, and the confidence that maximises F1.

All are at an IoU of 0.5, with the matches that pycocotools made. It gives objects to detections in
the order of their scores, so a lower limit of the score changes no match above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinart.engine.common.table import Table
from retinart.engine.evaluation.resample import Curves, Floats, Matches

_CONFIDENCES = np.arange(1000) / 1000
_SHOWN = 10  # every tenth confidence is in JSON
ALL = "all classes"


@dataclass(frozen=True, kw_only=True, eq=False)
class Operating:
    """What a model reaches at each limit of the confidence, from 0 to 0.999 in thousandths.

    Attributes:
        precision: hits among the detections; 1 where there are none.
        recall: hits among the objects.
        f1: twice the hits among detections and objects together.
    """

    precision: Floats
    recall: Floats
    f1: Floats

    @property
    def best(self) -> int:
        """The thousandth of the confidence that maximises F1, in the middle of equal ones."""
        equal = np.flatnonzero(self.f1 >= self.f1.max() - 1e-12)
        first = equal[0]
        last = first + np.argmax(np.append(np.diff(equal) > 1, True))  # of its run
        return int((first + last) // 2)

    def at(self, thousandth: int) -> dict[str, float]:
        """Confidence, precision, recall and F1, 0 to 1."""
        return {
            "confidence": float(_CONFIDENCES[thousandth]),
            "precision": float(self.precision[thousandth]),
            "recall": float(self.recall[thousandth]),
            "f1": float(self.f1[thousandth]),
        }


def operating_points(matches: Matches) -> dict[str, Operating]:
    """For all classes together, and for each class with objects."""
    every = {
        name: parts[0]
        for name, parts in zip(matches.classes, matches.curves, strict=True)
        if len(parts[0].objects)
    }
    return {
        ALL: _operating(list(every.values())),
        **{name: _operating([curves]) for name, curves in every.items()},
    }


def operating_json(points: dict[str, Operating]) -> dict[str, Any]:
    """The best confidence, and every hundredth, in plain JSON types."""
    return {
        name: {
            "best": point.at(point.best),
            "curve": [point.at(k) for k in range(0, len(_CONFIDENCES), _SHOWN)],
        }
        for name, point in points.items()
    }


def operating_table(points: dict[str, Operating]) -> Table:
    """The confidence that maximises F1, and what it gives, in points; all classes first."""
    rows = []
    for name, point in points.items():
        best = point.at(point.best)
        shares = (f"{100 * best[key]:.1f}" for key in ("precision", "recall", "f1"))
        rows.append((name, f"{best['confidence']:.3f}", *shares))
    proposed = points[ALL].at(points[ALL].best)["confidence"]
    return Table(
        title="The confidence that maximises F1",
        head=("", "confidence", "precision", "recall", "F1"),
        rows=rows,
        notes=[f"IoU 0.5. --conf {proposed:.3f} maximises F1 of all classes together."],
    )


def _operating(curves: Sequence[Curves]) -> Operating:
    counted = _at_least(np.concatenate([c.score for c in curves]))
    hits = np.zeros_like(counted)
    for curve in curves:
        events = curve.events[0]
        hits += _at_least(events.score[events.hit == 1])
        for sign in (1, -1):
            counted += sign * _at_least(events.score[events.more == sign])
    objects = sum(len(curve.objects) for curve in curves)
    return Operating(
        precision=np.divide(hits, counted, out=np.ones(len(hits)), where=counted > 0),
        recall=hits / objects,
        f1=2 * hits / (counted + objects),
    )


def _at_least(scores: Floats) -> Floats:
    """How many scores each confidence leaves."""
    return (len(scores) - np.searchsorted(np.sort(scores), _CONFIDENCES)).astype(np.float64)
