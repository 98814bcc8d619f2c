"""Ids for objects through the frames of a source: ByteTrack, of the package `trackers`."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from retinart.engine.detections import Detections
from retinart.engine.errors import MissingDependency

# ByteTrack's own 0.6 and 0.7 are for detectors whose scores lie higher than focal loss makes them
_SURE = 0.5


class Trackers:
    """A tracker for each source; an id belongs to its source.

    Args:
        rates: frames a second of each source, which say how long a lost object is remembered.

    Raises:
        MissingDependency: the package is not installed.
    """

    def __init__(self, rates: list[float]) -> None:
        try:
            self._supervision = importlib.import_module("supervision")
            bytetrack = importlib.import_module("trackers").ByteTrackTracker
        except ImportError as error:
            raise MissingDependency.package("trackers", "track", "Tracking") from error
        # it scales its memory, a second, by the rate, and forgets at once under one a second
        self._trackers: list[Any] = [
            bytetrack(
                frame_rate=max(rate, 2.0),
                track_activation_threshold=_SURE,
                high_conf_det_threshold=_SURE,
            )
            for rate in rates
        ]

    def __call__(self, source_index: int, found: Detections) -> Detections:
        """The detections of a source's next frame, with `tracker_id`.

        Args:
            source_index: of the source that the frame is from.
            found: every detection, as weak ones continue tracks too.
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
            # it does not keep the order of the detections
            ids[np.asarray(tracked.data["row"], np.int64)] = tracked.tracker_id
        return Detections(
            xyxy=found.xyxy,
            confidence=found.confidence,
            class_id=found.class_id,
            tracker_id=ids,
        )
