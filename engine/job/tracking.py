"""Give each object of a source an id that it keeps from frame to frame, with ByteTrack."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np

from retinart.engine.detections import Detections
from retinart.engine.errors import MissingDependency

# Score from which on a detection may begin a track. ByteTrack's defaults, 0.6 and 0.7, are too high
# for a RetinaNet: the focal loss gives lower scores.
_SURE = 0.5


class Trackers:
    """One ByteTrack tracker for each source. Ids of different sources are independent.

    Args:
        rates: frames a second of each source. A lost object is remembered for one second.

    Raises:
        MissingDependency: the package `trackers` is not installed.
    """

    def __init__(self, rates: list[float]) -> None:
        try:
            self._supervision = importlib.import_module("supervision")
            bytetrack = importlib.import_module("trackers").ByteTrackTracker
        except ImportError as error:
            raise MissingDependency.package("trackers", "track", "Tracking") from error
        # At a rate below one frame a second, ByteTrack forgets an object at once.
        self._trackers: list[Any] = [
            bytetrack(
                frame_rate=max(rate, 2.0),
                track_activation_threshold=_SURE,
                high_conf_det_threshold=_SURE,
            )
            for rate in rates
        ]

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
            # ByteTrack changes the order of the detections.
            ids[np.asarray(tracked.data["row"], np.int64)] = tracked.tracker_id
        return replace(found, tracker_id=ids)
