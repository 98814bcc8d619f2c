"""What was found in a picture of many, wherever it was detected on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from retinart.engine.detections import Detections


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureResult:
    """What was found in a picture, or why it cannot be read.

    Attributes:
        height, width: in pixels; 0 if it cannot be read.
        detections: in its pixels.
        why: it cannot be read; "" if it can.
        changes: what was changed of it, as (kind, effect).
    """

    height: int = 0
    width: int = 0
    detections: Detections
    why: str = ""
    changes: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; no number is rounded."""
        found = self.detections
        return {
            "size": [self.height, self.width],
            "boxes": found.xyxy.tolist(),
            "scores": found.confidence.tolist(),
            "labels": found.class_id.tolist(),
            "limits": dict(found.limits),
            "why": self.why,
            "changes": [list(change) for change in self.changes],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PictureResult:
        """What `to_json` made."""
        return cls(
            height=data["size"][0],
            width=data["size"][1],
            detections=Detections(
                xyxy=np.array(data["boxes"], np.float32).reshape(-1, 4),
                confidence=np.array(data["scores"], np.float32),
                class_id=np.array(data["labels"], np.int32),
                limits=data["limits"],
            ),
            why=data["why"],
            changes=tuple((kind, effect) for kind, effect in data["changes"]),
        )

    @classmethod
    def unread(cls, why: str) -> PictureResult:
        """The result of a picture that cannot be read."""
        nothing = Detections(
            xyxy=np.zeros((0, 4), np.float32),
            confidence=np.zeros(0, np.float32),
            class_id=np.zeros(0, np.int32),
        )
        return cls(detections=nothing, why=why)
