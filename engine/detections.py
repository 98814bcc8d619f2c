"""The result of detection in one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput
from retinart.engine.reached_limits import Limit


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)  # == of arrays gives an array
class Detections:
    """The detections in one image, best first. The field names are supervision's.

    Attributes:
        xyxy: (M, 4) float32 corners x1, y1, x2, y2 in pixels of the image.
        confidence: (M,) float32 scores from 0 to 1, descending.
        class_id: (M,) int32 indices into the model's class names.
        tracker_id: (M,) int32 ids of objects through a video, -1 while the tracker is not sure;
            None without a tracker.
        limits: limits that the image reached, and the highest score that a detection may have which
            was left out for it. Only OpenVINO sees the candidates.
    """

    xyxy: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int32]
    tracker_id: npt.NDArray[np.int32] | None = None
    limits: Mapping[Limit, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        m = len(self.confidence)
        shapes = (("xyxy", (m, 4)), ("confidence", (m,)), ("class_id", (m,)), ("tracker_id", (m,)))
        for name, shape in shapes:
            if getattr(self, name) is not None and getattr(self, name).shape != shape:
                raise BadInput(
                    f"Detections.{name} has shape {getattr(self, name).shape}",
                    fix=f"It must be {shape}",
                )

    def __repr__(self) -> str:
        """One line; the rows are in the arrays."""
        if not len(self):
            return "<Detections: 0>"
        high, low = self.confidence.max(), self.confidence.min()
        ids = np.unique(self.class_id).tolist()
        return f"<Detections: {len(self)}, scores {high:.2f} to {low:.2f}, class ids {ids}>"

    def __len__(self) -> int:
        return len(self.confidence)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float32], float, int]]:
        """Each detection as (box (4,), confidence, class_id)."""
        for box, score, label in zip(self.xyxy, self.confidence, self.class_id, strict=True):
            yield box, float(score), int(label)

    def __getitem__(
        self, index: int | npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice
    ) -> Detections:
        """The detections at a position, a mask, an index array or a slice.

        Raises:
            IndexError: the position is out of range.
        """
        picked: Any = [index] if isinstance(index, int | np.integer) else index
        return replace(
            self,
            xyxy=self.xyxy[picked],
            confidence=self.confidence[picked],
            class_id=self.class_id[picked],
            tracker_id=None if self.tracker_id is None else self.tracker_id[picked],
        )
