"""Runners: one model file on one runtime, frames in, detections in frame pixels out.

    N  frames      H, W  the network's size      M  detections of a frame

OpenVINO runs the network up to the candidates and NumPy does NMS, which is faster on a CPU than any
in-graph form; ONNX Runtime runs the file exactly as it is written. Both give the same detections,
with one exception: most projects clip boxes to the image before NMS, and NMS in the file knows only
the frame. So it may decide otherwise than they and OpenVINO for boxes that reach into padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image
from retinart.engine.model.info import Thresholds

Finish = Callable[[], list[Detections]]


class Runner(Protocol):
    """What a detector needs of a runtime. Several threads may call it at once.

    Attributes:
        name: of the runtime.
        at_once: batches under way at once that give the highest rate.
    """

    name: str
    at_once: int

    def start(
        self,
        frames: Image,
        sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds,
        clock: StageClock,
    ) -> Finish:
        """Begin with a batch.

        Args:
            frames: (N, H, W, 3) uint8 BGR; not to be changed before it is finished.
            sizes: (height, width) of the part of each frame that is no padding, at its top left.
            thresholds: what counts as a detection.
            clock: gets the times of the stages infer and nms.

        Returns:
            What waits for the batch, on any thread and once, and gives detections in pixels of the
            frames, one object a frame. One that is never called does no harm.
        """

    def close(self) -> None:
        """Give back what the runtime holds."""


def from_outputs(
    count: Any, boxes: Any, scores: Any, labels: Any, thresholds: Thresholds
) -> list[Detections]:
    """Detections of the four outputs of a file's own NMS, at thresholds that are no looser."""
    found = []
    for n, b, s, c in zip(count[:, 0], boxes, scores, labels, strict=True):
        n = min(int(n), thresholds.detections_per_img)
        n = int(np.count_nonzero(s[:n] > thresholds.score_thresh))
        found.append(Detections(xyxy=b[:n], confidence=s[:n], class_id=c[:n]))
    return found


def last_line(error: Exception) -> str:
    """The cause: OpenVINO's messages begin with its own source files."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def check_stricter(wanted: Thresholds, built: Thresholds) -> None:
    """Raise BadInput when the NMS built into a file cannot give what is wanted."""
    if (
        wanted.nms_thresh != built.nms_thresh
        or wanted.score_thresh < built.score_thresh
        or wanted.detections_per_img > built.detections_per_img
    ):
        raise BadInput(
            f"the file's own NMS has conf {built.score_thresh}, iou {built.nms_thresh} and "
            f"max-det {built.detections_per_img} built in, and cannot be made looser",
            fix="Use the OpenVINO runtime, which takes any, or export again with other thresholds",
        )
