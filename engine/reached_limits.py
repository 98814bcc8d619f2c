"""Limits that pictures reached, so that there may be more in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal, get_args

# What may leave detections out: the number of detections of an image, or of pairs before NMS.
Limit = Literal["detections", "candidates"]

SURE = 0.3  # the score from which on a detection counts for people
_LIFTED_BY: dict[Limit, str] = {
    "detections": "raise `max_det`",
    "candidates": "export with a higher --topk-candidates",
}


class ReachedLimits:
    """How many pictures reached each limit, and how many lack what a person would look at.

    Args:
        sure: the score from which on a detection counts for people. Most pictures that reach a
            limit lack scores below it alone, and no line is printed for them.
    """

    def __init__(self, sure: float = SURE) -> None:
        self._sure = sure
        self._all, self._matter, self._pictures = Counter[Limit](), Counter[Limit](), 0

    def add(self, limits: Mapping[Limit, float]) -> None:
        """Count a picture.

        Args:
            limits: the attribute of its `Detections`.
        """
        self._all.update(limits.keys())
        matter = [name for name, best in limits.items() if best >= self._sure]
        self._matter.update(matter)
        self._pictures += bool(matter)

    def to_json(self) -> dict[str, int]:
        """The number of pictures that reached each limit."""
        return {name: self._all[name] for name in get_args(Limit)}

    def notes(self, kind: Literal["image", "frame"], pictures: int) -> list[str]:
        """A line if detections may be missing that a person would look at, and what brings them.

        Args:
            kind: what the pictures are called.
            pictures: how many there were.
        """
        fixes = [fix for name, fix in _LIFTED_BY.items() if self._matter[name]]
        if not fixes:
            return []
        return [
            f"{self._pictures} of {pictures} {kind}s may hold more detections with a score from "
            f"{self._sure:g} on: {' and '.join(fixes)}"
        ]
