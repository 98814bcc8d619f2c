"""Runners: one model file on one runtime, images in, detections in their pixels out.

    N  images      H, W  the network's size      M  detections of an image

A runner prepares images, what it prepared can be submitted, and what was submitted has a result:

    found = runner.prepare(images).submit(clock).result()

OpenVINO runs the network up to the candidates and NumPy does NMS, which is faster on a CPU than any
form of NMS in a graph. The other runtimes run the file exactly as it is written. All give the same
detections, with one exception. Most projects clip boxes to the image before NMS. The file's NMS
clips to the padded frame, so boxes that reach into the padding can be kept or dropped differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image
from retinart.engine.model.info import ModelInfo, Thresholds
from retinart.engine.model.resized_image import Resized
from retinart.engine.reached_limits import Limit

Floats = npt.NDArray[np.float32]

# Waits for a batch, on any thread and once; returns detections in pixels of the network's frames.
Finish = Callable[[], list[Detections]]


class Runner(Protocol):
    """A model file that is loaded. Several threads may use one runner at once.

    Attributes:
        name: of the runtime.
        info: the model's metadata.
        thresholds: those in force.
        identity: runtime, version, device and what else decides how it computes.
        max_in_flight: batches under way at once that give the highest rate.
    """

    name: str
    info: ModelInfo
    thresholds: Thresholds
    identity: tuple[str, ...]
    max_in_flight: int

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """Bring images to the network's size, or note how the runtime will.

        Args:
            images: one or more, each (H, W, 3) uint8 BGR, of any sizes; not to be changed before
                the batch is finished.
        """

    def tensors(self, names: Sequence[str], frames: Image) -> dict[str, Floats] | None:
        """Tensors of the graph as this runtime computes them, by name.

        Args:
            names: HEADS or CANDIDATES.
            frames: (N, H, W, 3) uint8 BGR at the network's size.

        Returns:
            The values, or None where the runtime cannot show them.
        """

    def close(self) -> None:
        """Give back what the runtime holds."""


@dataclass(frozen=True)
class Prepared:
    """Images that a runner has prepared, which it can run any number of times.

    Attributes:
        start: starts a batch of them.
        resized: each image's way back to its own pixels.
        keep: what leaves detections out of the result, given an image's detections in its pixels
            and its (height, width); None keeps all.
    """

    start: Callable[[StageClock], Finish]
    resized: Sequence[Resized]
    keep: Callable[[Detections, tuple[int, int]], Detections] | None = None

    def submit(self, clock: StageClock) -> Pending:
        """Start inference; the clock gets the times of the stages copy, infer, nms and results."""
        return Pending(self.start(clock), self, clock)


class Pending:
    """A batch under way. It may be dropped without asking for its result."""

    def __init__(self, finish: Finish, prepared: Prepared, clock: StageClock) -> None:
        self._finish, self._prepared, self._clock = finish, prepared, clock

    def result(self) -> list[Detections]:
        """Wait for the batch; on any thread, and once.

        Returns:
            Detections in pixels of each image, one object an image. Boxes are clipped to the image;
            a box that lies outside of it is left out.
        """
        found = self._finish()
        with self._clock("results"):
            keep, resized = self._prepared.keep, self._prepared.resized
            here = [r.detections_to_source(one) for r, one in zip(resized, found, strict=True)]
            if keep is None:
                return here
            return [keep(one, r.source_size) for r, one in zip(resized, here, strict=True)]


def from_outputs(
    count: Any, boxes: Any, scores: Any, labels: Any, thresholds: Thresholds
) -> list[Detections]:
    """Detections from the four outputs of a file's own NMS, at thresholds at least as strict."""
    found = []
    for n, b, s, c in zip(count[:, 0], boxes, scores, labels, strict=True):
        n = min(int(n), thresholds.detections_per_img)
        n = int(np.count_nonzero(s[:n] > thresholds.score_thresh))
        full = n == thresholds.detections_per_img
        limits: dict[Limit, float] = {"detections": float(s[n - 1])} if full else {}
        found.append(Detections(xyxy=b[:n], confidence=s[:n], class_id=c[:n], limits=limits))
    return found


def last_line(error: Exception) -> str:
    """The last line of a message: OpenVINO's messages begin with its own source files."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def check_stricter(wanted: Thresholds, built: Thresholds) -> None:
    """Check that the NMS that is built into a file can give what is wanted.

    Raises:
        BadInput: it cannot.
    """
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
