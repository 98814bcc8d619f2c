"""Count tracked objects at the lines and in the zones of a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections
from retinart.engine.keep.areas import Areas, Line
from retinart.engine.keep.keeper import anchors_of, contains, scale_of

_FORGOTTEN = 2.0  # seconds after which an object that is not seen has left; trackers remember for 1

Kind = Literal["cross", "enter", "leave"]
Direction = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a tracked object did.

    Attributes:
        time: seconds in the video, or since a live source's first frame; None for images.
        frame: see `Frame.index`.
        area: the line's or zone's name.
        direction: the side that a line was crossed to, seen from its start towards its end.
        dwell: seconds in the zone that the object left; None for images, which have no times.
        lost: it was not seen any more, rather than seen to leave.
    """

    time: float | None
    frame: int
    kind: Kind
    area: str
    track: int
    class_id: int
    direction: Direction | None = None
    dwell: float | None = None
    lost: bool = False


@dataclass(frozen=True)
class LineTally:
    """How often a line was crossed, to its left and to its right."""

    left: int = 0
    right: int = 0

    def text(self) -> str:
        """For people."""
        return f"{self.left} to the left, {self.right} to the right"


@dataclass(frozen=True)
class ZoneTally:
    """Objects in a zone.

    Attributes:
        now, most: objects in it, and the most at once.
        entered: how often one entered.
        departed: how often one left.
        dwell_sum: seconds that those had been inside, all together.
    """

    now: int = 0
    most: int = 0
    entered: int = 0
    departed: int = 0
    dwell_sum: float = 0.0

    @property
    def dwell_mean(self) -> float | None:
        """Seconds that an object was inside; None before the first one has departed."""
        return self.dwell_sum / self.departed if self.dwell_sum else None

    def text(self) -> str:
        """For people."""
        mean = f", {self.dwell_mean:.1f} s on average" if self.dwell_mean else ""
        return f"{self.now} inside, {self.entered} in all{mean}"


@dataclass(frozen=True)
class Tally:
    """All counts of a source after a frame, and the events of that frame."""

    lines: dict[str, LineTally]
    zones: dict[str, ZoneTally]
    events: tuple[Event, ...] = ()

    def texts(self) -> dict[str, str]:
        """For people, by the area's name."""
        lines = {name: line.text() for name, line in self.lines.items()}
        return lines | {name: zone.text() for name, zone in self.zones.items()}


@dataclass
class _Track:
    """An object: its last point, its class, when it was seen, and when it entered each zone."""

    point: npt.NDArray[np.float64]
    class_id: int
    seen: float
    entered: dict[str, float] = field(default_factory=dict)


class AreaCounter:
    """Counts the objects of one source. An object crosses a line where its path does.

    Args:
        areas: their lines and zones are counted.
    """

    def __init__(self, areas: Areas) -> None:
        self._areas = areas
        self._tracks: dict[int, _Track] = {}
        self._lines = {line.name: LineTally() for line in areas.lines}
        self._zones = {zone.name: ZoneTally() for zone in areas.zones}

    def __call__(
        self, found: Detections, *, size: tuple[int, int], time: float | None, frame: int
    ) -> Tally:
        """Take the next frame's tracked detections.

        Args:
            found: with `tracker_id`; those below 0 are not counted.
            size: (height, width) of the frame.
            time: in seconds; see `Event`.
            frame: its index.
        """
        clock = float(frame) if time is None else time
        ids = found.tracker_id if found.tracker_id is not None else np.full(len(found), -1)
        points = anchors_of(found.xyxy, self._areas.anchor)
        scale = scale_of(self._areas, size)
        inside = {
            zone.name: contains(np.array(zone.points) * scale, points) for zone in self._areas.zones
        }
        events = list[Event]()
        for i in np.flatnonzero(ids >= 0).tolist():
            track = self._tracks.get(int(ids[i]))
            point, label = points[i] / scale, int(found.class_id[i])
            if track is None:
                track = self._tracks[int(ids[i])] = _Track(point, label, clock)
            event = partial(Event, time=time, frame=frame, track=int(ids[i]), class_id=label)
            for line in self._areas.lines:
                to = crossed(line, track.point, point)
                if to is not None:
                    events.append(event(kind="cross", area=line.name, direction=to))
            for name, hit in inside.items():
                if hit[i] and name not in track.entered:
                    track.entered[name] = clock
                    events.append(event(kind="enter", area=name))
                elif not hit[i] and name in track.entered:
                    stay = clock - track.entered.pop(name)
                    dwell = None if time is None else stay
                    events.append(event(kind="leave", area=name, dwell=dwell))
            track.point, track.class_id, track.seen = point, label, clock
        events += self._forget(clock, time, frame)
        self._count(events)
        return Tally(dict(self._lines), dict(self._zones), tuple(events))

    def _forget(self, clock: float, time: float | None, frame: int) -> Iterator[Event]:
        """Objects that were not seen for long: they left where they were seen last."""
        for number, track in list(self._tracks.items()):
            if clock - track.seen > _FORGOTTEN:
                del self._tracks[number]
                for name, entered in track.entered.items():
                    dwell = None if time is None else track.seen - entered
                    yield Event(
                        time=time, frame=frame, kind="leave", area=name, track=number,
                        class_id=track.class_id, dwell=dwell, lost=True,
                    )  # fmt: skip

    def _count(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind == "cross":
                old = self._lines[event.area]
                left = int(event.direction == "left")
                self._lines[event.area] = LineTally(old.left + left, old.right + 1 - left)
        for name, zone in self._zones.items():
            here = [event for event in events if event.area == name]
            gone = [event for event in here if event.kind == "leave"]
            now = sum(name in track.entered for track in self._tracks.values())
            self._zones[name] = ZoneTally(
                now,
                max(zone.most, now),
                zone.entered + len(here) - len(gone),
                zone.departed + len(gone),
                zone.dwell_sum + sum(event.dwell or 0.0 for event in gone),
            )


def crossed(
    line: Line, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]
) -> Direction | None:
    """The side that a path from one point to another crosses a line to, or None.

    A point on the line is on its right, so a path that ends there and one that begins there do not
    both cross it.
    """
    start, end = np.array(line.start), np.array(line.end)
    one, other = _side(start, end, before), _side(start, end, after)
    if (one >= 0) == (other >= 0):
        return None
    met = before + (after - before) * one / (one - other)
    along = (met - start) @ (end - start) / ((end - start) @ (end - start))
    if not 0 <= along <= 1:
        return None
    return "right" if other >= 0 else "left"


def _side(
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], point: npt.NDArray[np.float64]
) -> float:
    """Above 0 to the right of a line in a picture, whose y grows downwards; below 0 to its left."""
    (dx, dy), (x, y) = end - start, point - start
    return float(dx * y - dy * x)
