"""The newest frame of each source, for viewers that take it when they are ready."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from retinart.engine.common.latency_histogram import Times
from retinart.engine.common.timing import StageName
from retinart.engine.detections import Detections
from retinart.engine.media.frame import Frame

_WIDEST = 1280  # pixels of a picture that is sent
_QUALITY = 80
_RECENT = 2.0  # seconds that rates and stage times are of


@dataclass(frozen=True)
class Figures:
    """What a job tells of itself.

    Attributes:
        stages: times by stage, since the beginning.
        dropped: frames that were dropped, by source.
        counts: lines and zones, by source; empty where nothing is counted.
    """

    stages: Mapping[StageName, Times]
    dropped: Sequence[int]
    counts: Sequence[Any] = ()


class Board:
    """Holds the newest frame of each source; any thread may put and read.

    A frame is encoded when the first viewer asks for it, and once for all of them. So a job that is
    not watched pays nothing, and a slow viewer takes fewer frames.

    Args:
        about: what a page has to know once, in JSON's types.
        sources: how many there are.
        figures: tells a job's figures so far.
    """

    def __init__(self, about: Any, sources: int, figures: Callable[[], Figures]) -> None:
        self.about, self._sources, self._figures = about, sources, figures
        self._newest: list[_Posted | None] = [None] * sources
        self._times: list[deque[float]] = [deque() for _ in range(sources)]
        self._number, self.ended = 0, False
        self._changed = threading.Condition()
        self._told: dict[str, Any] = {}
        self._told_at, self._totals = 0.0, dict[str, tuple[int, float]]()

    def put(self, frame: Frame, found: Detections) -> None:
        """Post a source's next frame; it takes the place of the one before."""
        now = time.perf_counter()
        with self._changed:
            self._number += 1
            self._newest[frame.source_index] = _Posted(self._number, frame, found)
            times = self._times[frame.source_index]
            times.append(now)
            while now - times[0] > _RECENT:
                times.popleft()
            self._changed.notify_all()

    def end(self) -> None:
        """No frame follows: viewers that wait get their answer."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def news(self, after: int, timeout: float) -> bytes:
        """What is newer than a viewer has, in one message.

        It begins with the length of a JSON object in 4 bytes, big-endian, and the object. The
        JPEG files of the frames that the object lists follow.

        Args:
            after: the greatest number of a frame that the viewer has; 0 for none.
            timeout: seconds to wait for a frame. Without one, the message has figures only.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self._number > after, timeout)
            posted = [p for p in self._newest if p is not None and p.number > after]
            number = max([after, *(p.number for p in posted)])
            told = self._figures_now()
        now, pictures = time.perf_counter(), [p.jpeg() for p in posted]
        frames = [
            {**p.to_json(now), "bytes": len(picture)}
            for p, picture in zip(posted, pictures, strict=True)
        ]
        head = json.dumps({**told, "ended": self.ended, "number": number, "frames": frames})
        data = head.encode()
        return b"".join([len(data).to_bytes(4, "big"), data, *pictures])

    def _figures_now(self) -> dict[str, Any]:
        """Rates, and times by stage, of the last seconds. They are taken anew twice a second."""
        now = time.perf_counter()
        if now - self._told_at < 0.5:
            return self._told
        figures, recent = self._figures(), self._told.get("stages", {})
        rates = [sum(now - t <= _RECENT for t in times) / _RECENT for times in self._times]
        stages = dict[str, float]()
        for name, times in figures.stages.items():
            count, total = self._totals.get(name, (0, 0.0))
            if times.count > count:
                stages[name] = round((times.total_ms - total) / (times.count - count), 2)
            else:
                stages[name] = recent.get(name, 0.0)
            self._totals[name] = (times.count, times.total_ms)
        self._told_at = now
        self._told = {
            "rates": [round(rate, 1) for rate in rates],
            "stages": stages,
            "dropped": list(figures.dropped),
            "counts": list(figures.counts),
        }
        return self._told


class _Posted:
    """A frame on the board."""

    def __init__(self, number: int, frame: Frame, found: Detections) -> None:
        self.number, self._frame, self._found = number, frame, found
        self._lock, self._jpeg = threading.Lock(), b""

    def to_json(self, now: float) -> dict[str, Any]:
        """All but the picture. Boxes are in pixels of the source."""
        frame, found = self._frame, self._found
        height, width = frame.image.shape[:2]
        ids = found.tracker_id if found.tracker_id is not None else np.full(len(found), -1)
        columns = zip(
            found.xyxy.astype(np.float64).round(1).tolist(),
            found.confidence.astype(np.float64).round(3).tolist(),
            found.class_id.tolist(),
            ids.tolist(),
            strict=True,
        )
        return {
            "source": frame.source_index,
            "number": self.number,
            "frame": frame.index,
            "time_ms": frame.time_ms,
            "age_ms": round(1000 * (now - frame.captured), 1),
            "size": [width, height],
            "detections": [[*box, score, label, track] for box, score, label, track in columns],
        }

    def jpeg(self) -> bytes:
        """The picture, at most 1280 pixels wide."""
        with self._lock:
            if not self._jpeg:
                image = self._frame.image
                height, width = image.shape[:2]
                if width > _WIDEST:
                    size = (_WIDEST, max(1, round(height * _WIDEST / width)))
                    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
                done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
                assert done
                self._jpeg = data.tobytes()
            return self._jpeg
