"""How many events there were at lines and in zones, for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, get_args

from retinart.engine.keep.areas import Areas
from retinart.engine.keep.counting import Direction, Event


class EventKey(NamedTuple):
    """What is counted together.

    Attributes:
        source: its index.
        area: the line's or zone's name.
        kind: see `Event`.
        direction: see `Event`; "" where it has none.
        label: the class's name.
    """

    source: int
    area: str
    kind: str
    direction: str
    label: str


class EventCounts:
    """Counts events.

    Args:
        areas: their lines and zones have events; None for no events.
        sources: how many.
        classes: names.
    """

    def __init__(self, areas: Areas | None, sources: int, classes: Sequence[str]) -> None:
        self._areas, self._sources, self._classes = areas, sources, classes
        self._counts = Counter[EventKey]()

    def add(self, source: int, events: Iterable[Event]) -> None:
        """Count the events in a frame of a source."""
        for event in events:
            what = (event.area, event.kind, event.direction or "")
            self._counts[EventKey(source, *what, self._classes[event.class_id])] += 1

    def now(self, seen: Iterable[str]) -> dict[EventKey, int]:
        """The counts so far.

        Args:
            seen: classes that begin with 0: a rate needs the value before the first event.
        """
        labels = list(seen)
        begin = (
            EventKey(source, *what, label)
            for source in range(self._sources)
            for what in self._kinds()
            for label in labels
        )
        return dict.fromkeys(begin, 0) | dict(self._counts)

    def _kinds(self) -> Iterator[tuple[str, str, str]]:
        if self._areas is not None:
            for line in self._areas.lines:
                yield from ((line.name, "cross", to) for to in get_args(Direction))
            for zone in self._areas.zones:
                yield from ((zone.name, kind, "") for kind in ("enter", "leave"))
