"""Limits that pictures reached, so that there may be more in them: their lines for people."""

from __future__ import annotations

from collections import Counter
from typing import Literal, get_args

from retinart.engine.detections import Limit
from retinart.engine.model.info import Thresholds


def limit_counts(limits: Counter[Limit]) -> dict[Limit, int]:
    """The number of pictures that reached each limit, as it is stored."""
    return {name: limits[name] for name in get_args(Limit)}


def limit_notes(
    limits: Counter[Limit],
    pictures: int,
    thresholds: Thresholds,
    *,
    kind: Literal["image", "frame"],
) -> list[str]:
    """A line for each limit that pictures reached, and what lifts it.

    Args:
        limits: how many pictures reached each limit, see `Detections`.
        pictures: how many there were.
        thresholds: of the detector.
        kind: what the pictures are called.
    """
    notes, t = [], thresholds
    if n := limits["detections"]:
        notes.append(
            f"{n} of {pictures} {kind}s have {t.detections_per_img} detections, the most that one "
            "may have, and there may be more in them: raise `max_det`"
        )
    if n := limits["candidates"]:
        notes.append(
            f"{n} of {pictures} {kind}s have more candidates than enter NMS ({t.topk_candidates} "
            f"anchors a level, {t.nms_candidates} in all), so weak detections may be missing: "
            "raise `conf`, or export with a higher --topk-candidates"
        )
    return notes
