"""Counts of events for Prometheus."""

from __future__ import annotations

from functools import partial

from retinart.engine.keep.areas import Areas, Line, Polygon
from retinart.engine.keep.counting import Event
from retinart.engine.metrics.event_counts import EventCounts, EventKey


def test_what_may_come_begins_with_0() -> None:
    areas = Areas(
        size=(9, 9),
        lines=(Line(name="gate", start=(0, 0), end=(9, 9)),),
        zones=(Polygon(name="yard", points=((0, 0), (9, 0), (0, 9))),),
    )
    counts = EventCounts(areas, 2, ["car", "bus"])
    event = partial(Event, time=1.0, frame=1, track=1)
    counts.add(1, [event(kind="cross", area="gate", direction="left", class_id=1)] * 2)
    counts.add(0, [event(kind="leave", area="yard", class_id=0)])
    found = counts.now(["car"])
    assert len(found) == 2 * 4 + 1
    assert {key: count for key, count in found.items() if count} == {
        EventKey(1, "gate", "cross", "left", "bus"): 2,
        EventKey(0, "yard", "leave", "", "car"): 1,
    }
    assert EventCounts(None, 2, ["car"]).now(["car"]) == {}
