"""Give each object of a source an id that it keeps from frame to frame, with ByteTrack or SORT."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np

from retinart.engine.detections import Detections
from retinart.engine.errors import MissingDependency
from retinart.engine.job.settings import TrackerKind

# Score from which on a detection may begin a track. ByteTrack's defaults, 0.6 and 0.7, are too high
# for a RetinaNet: the focal loss gives lower scores.
SURE = 0.5
_FRAMES = 2  # in which an object is seen before it gets an id


class Trackers:
    """A tracker for each source. An id belongs to its source: others may have the same number.

    Args:
        rates: frames a second of each source. A lost object is remembered for one second.
        kind: "bytetrack" continues a track with weak detections in a second pass; "sort" has one
            pass, over all of them.

    Raises:
        MissingDependency: the package `trackers` is not installed.
    """

    def __init__(self, rates: list[float], kind: TrackerKind = "bytetrack") -> None:
        try:
            self._supervision = importlib.import_module("supervision")
            package = importlib.import_module("trackers")
        except ImportError as error:
            raise MissingDependency.package("trackers", "track", "Tracking") from error
        # At a rate below one frame a second, a tracker forgets an object at once.
        self._trackers: list[Any] = [_new(package, kind, max(rate, 2.0)) for rate in rates]

    def __call__(self, source_index: int, found: Detections) -> Detections:
        """Add `tracker_id` to the detections of a source's next frame.

        Args:
            source_index: of the source that the frame is from.
            found: all detections of the frame. Weak ones can continue a track.
        """
        given = self._supervision.Detections(
            xyxy=found.xyxy.copy(),
            confidence=found.confidence.copy(),
            class_id=found.class_id.copy(),
            data={"row": np.arange(len(found))},
        )
        tracked = self._trackers[source_index].update(given)
        ids = np.full(len(found), -1, np.int32)
        if len(tracked) and tracked.tracker_id is not None:
            # trackers change the order of the detections.
            ids[np.asarray(tracked.data["row"], np.int64)] = tracked.tracker_id
        return replace(found, tracker_id=ids)


def _new(package: Any, kind: TrackerKind, rate: float) -> Any:
    sure = {"frame_rate": rate, "track_activation_threshold": SURE}
    if kind == "sort":
        return package.SORTTracker(**sure, minimum_consecutive_frames=_FRAMES)
    return package.ByteTrackTracker(
        **sure, minimum_consecutive_frames=_FRAMES, high_conf_det_threshold=SURE
    )
