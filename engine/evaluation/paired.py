"""What a second model changes on the same pictures, with intervals.

The intervals are the paired bootstrap's (Efron and Tibshirani, An Introduction to the Bootstrap):
pictures are drawn with replacement, the same ones for both models, and the middle 95% of the
changes are the interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.gate import Change
from retinart.engine.evaluation.resample import Floats, Matches, draw_pictures, resampled

RESAMPLES = 1000
_TAILS = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The changes of all figures.

    Attributes:
        pictures: on how many they were measured.
        figures: by name; a figure without objects is left out.
        per_class: of AP, by class.
        recall: of the recall at the wanted precision, by class; empty without one.
    """

    pictures: int
    figures: Mapping[str, Change]
    per_class: Mapping[str, Change]
    recall: Mapping[str, Change]


def paired_changes(
    first: Matches,
    second: Matches,
    *,
    precision: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Changes:
    """What the second model changes, with intervals, for the same pictures in the same order.

    Args:
        first, second: the matches of two models.
        precision: 0 to 1, at which recall is compared by class; None compares none.
        resamples: how often the pictures are drawn.
        seed: of the draws; the same seed gives the same intervals.

    Raises:
        BadInput: the two were measured on different pictures.
    """
    if first.images != second.images:
        counts = f"one on {len(first.images)} and the other on {len(second.images)}"
        raise BadInput(
            "the two models cannot be compared",
            why=f"they were measured on different pictures, {counts}",
            fix="Measure both again, on the same pictures",
        )
    pictures = len(first.images)
    # The first row holds every picture once: the figures themselves.
    every = np.ones((1, pictures), np.int32)
    weights = np.concatenate([every, draw_pictures(pictures, resamples, seed)])
    a, b = (resampled(model, weights, precision=precision) for model in (first, second))
    return Changes(
        pictures=pictures,
        figures=_changes(a.figures, b.figures),
        per_class=_changes(a.per_class, b.per_class),
        recall=_changes(a.recall, b.recall),
    )


def _changes(a: Mapping[str, Floats], b: Mapping[str, Floats]) -> dict[str, Change]:
    """The changes of the figures that both have."""
    found = {}
    for name in a:
        if name in b and not np.isnan((a[name][0], b[name][0])).any():
            change = 100 * (b[name] - a[name])
            low, high = np.nanpercentile(change[1:], _TAILS)
            value = float(change[0])  # resamples repeat pictures, so their median may be another
            found[name] = Change(
                value=value, low=min(float(low), value), high=max(float(high), value)
            )
    return found
