"""Counting at lines and in zones: exact on made tracks, and on a made video."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest

from retinart import Detections
from retinart.engine.keep.areas import Areas, Line, Polygon
from retinart.engine.keep.counting import AreaCounter, Event, Tally, crossed
from support import read_lines

Command = Callable[..., CompletedProcess[str]]
GATE = Line(name="gate", start=(50, 10), end=(50, 90))  # downwards: its left is the right of it
YARD = Polygon(name="yard", points=((60, 0), (100, 0), (100, 100), (60, 100)))
AREAS = Areas(size=(100, 100), lines=(GATE,), zones=(YARD,))


def _found(points: dict[int, tuple[float, float]]) -> Detections:
    """Boxes of 4x4 around points, by track."""
    centers = np.array(list(points.values()), np.float32).reshape(-1, 2)
    return Detections(
        xyxy=np.concatenate([centers - 2, centers + 2], axis=1),
        confidence=np.full(len(points), 0.9, np.float32),
        class_id=np.zeros(len(points), np.int32),
        tracker_id=np.array(list(points), np.int32),
    )


def _run(*steps: dict[int, tuple[float, float]], rate: float = 10) -> tuple[Tally, list[Event]]:
    """The last tally and all events of frames."""
    counter, events = AreaCounter(AREAS), list[Event]()
    for i, points in enumerate(steps):
        tally = counter(_found(points), size=(100, 100), time=i / rate, frame=i)
        events += tally.events
    return tally, events


@pytest.mark.parametrize(
    ("path", "sides"),
    [
        ([(40, 50), (60, 50)], "L"),
        ([(60, 50), (40, 50)], "R"),
        ([(0, 50), (100, 50)], "L"),  # a fast object
        ([(40, 50), (60, 50), (40, 50)], "LR"),
        ([(40, 50), (50, 50), (60, 50)], "L"),  # it stops on the line
        ([(40, 50), (50, 50), (40, 50)], ""),  # it touches the line
        ([(60, 50), (50, 50), (60, 50)], "RL"),  # a point on the line is on its right
        ([(40, 5), (60, 5)], ""),  # above the line
        ([(40, 5), (60, 25)], "L"),  # across it, at (50, 15)
        ([(40, 0), (60, 15)], ""),  # past its end, at (50, 7.5)
        ([(40, 50)], ""),
    ],
)
def test_paths_across_a_line(path: list[tuple[float, float]], sides: str) -> None:
    tally, events = _run(*({7: point} for point in path))
    assert [e.direction for e in events if e.kind == "cross"] == [
        {"L": "left", "R": "right"}[s] for s in sides
    ]
    counts = Counter(sides)
    assert (tally.lines["gate"].left, tally.lines["gate"].right) == (counts["L"], counts["R"])


def test_random_paths_keep_the_balance() -> None:
    """Over a line from edge to edge, crossings add up to the sides of begin and end."""
    line = Line(name="all", start=(30, 0), end=(70, 100))
    rng = np.random.default_rng(4)
    for _ in range(200):
        points = rng.uniform(0, 100, (20, 2))
        got = [crossed(line, a, b) for a, b in pairwise(points)]
        inner = [(p[1] - 0) * 0.4 + 30 > p[0] for p in points]  # to the right of it, looking down
        wanted = ["right" if b else "left" for a, b in pairwise(inner) if a != b]
        assert [one for one in got if one] == wanted


def test_a_zone() -> None:
    path = [(55, 50), (65, 50), (70, 50), (75, 50), (55, 50)]
    tally, events = _run(*({3: point, 4: (80.0, 20.0)} for point in path))
    assert [(e.kind, e.track, e.time) for e in events if e.area == "yard"] == [
        ("enter", 4, 0.0),
        ("enter", 3, 0.1),
        ("leave", 3, 0.4),
    ]
    assert events[-1].dwell == pytest.approx(0.3) and not events[-1].lost
    yard = tally.zones["yard"]
    assert (yard.now, yard.most, yard.entered, yard.departed) == (1, 2, 2, 1)
    assert tally.texts() == {
        "gate": "0 to the left, 0 to the right",
        "yard": "1 inside, 2 in all, 0.3 s on average",
    }


def test_an_object_that_is_lost_has_left() -> None:
    steps = [{1: (80.0, 50.0)}] * 11 + [{}] * 25
    tally, events = _run(*steps)
    (_, left) = events
    assert left.kind == "leave" and left.lost and left.dwell == pytest.approx(1.0)
    assert left.time == pytest.approx(3.1) and tally.zones["yard"].now == 0
    again, _ = _run(*steps[:11], *[{}] * 9, *steps[:3])  # it was hidden for a second
    assert (again.zones["yard"].now, again.zones["yard"].entered) == (1, 1)


def test_images_have_no_dwell() -> None:
    """Their numbers were taken for seconds."""
    counter, events = AreaCounter(AREAS), list[Event]()
    for i, point in enumerate([(55.0, 50.0), (65.0, 50.0), (55.0, 50.0)]):
        tally = counter(_found({3: point}), size=(100, 100), time=None, frame=i)
        events += [event for event in tally.events if event.area == "yard"]
    assert [(event.kind, event.dwell) for event in events] == [("enter", None), ("leave", None)]
    assert tally.zones["yard"].departed == 1 and tally.zones["yard"].dwell_mean is None
    assert tally.texts()["yard"] == "0 inside, 1 in all"


def test_what_has_no_track_is_not_counted() -> None:
    tally, events = _run({-1: (40, 50)}, {-1: (60, 50)})
    assert not events and tally.lines["gate"].left == tally.zones["yard"].now == 0


def _write_discs(path: Path) -> None:
    """80 frames of discs: three go to the right, two to the left, and one turns round."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20, (640, 512))
    for t in range(80):
        image = np.full((512, 640, 3), 200, np.uint8)
        right, left = 60 + 7 * t, 580 - 7 * t
        turn = 60 + 5 * (t if t < 40 else 80 - t)
        rows = [(right, 50), (left, 130), (right, 210), (left, 290), (right, 370), (turn, 450)]
        for i, (x, y) in enumerate(rows):
            color = [(40, 40, 200), (40, 160, 40), (200, 60, 40)][i % 3]
            cv2.circle(image, (x, y), 30, color, -1, cv2.LINE_AA)
        writer.write(image)
    writer.release()


@pytest.mark.parametrize("tracker", ["bytetrack", "sort"])
def test_a_made_video_is_counted_exactly(
    retinart: Command, tiny_path: Path, tmp_path: Path, tracker: str
) -> None:
    pytest.importorskip("trackers", reason="tracking needs retinart[track]")
    _write_discs(tmp_path / "discs.mp4")
    data: dict[str, Any] = {
        "size": [640, 512],
        "lines": [{"name": "gate", "start": [320, 512], "end": [320, 0]}],
        "zones": [{"name": "yard", "points": [[400, 0], [640, 0], [640, 512], [400, 512]]}],
    }
    areas, out = tmp_path / "areas.json", tmp_path / "out"
    areas.write_text(json.dumps(data))
    more = ["--region", areas, "--classes", "disc", "--conf", "0.3", "--out", out]
    more += ["--tracker", tracker]
    ran = retinart("detect", tiny_path, tmp_path / "discs.mp4", "--track", *more)
    assert ran.returncode == 0, ran.stderr
    (source,) = json.loads((out / "summary.json").read_text())["sources"]
    assert source["lines"] == {"gate": {"left": 2, "right": 3}}, ran.stderr
    yard = source["zones"]["yard"]
    assert (yard["entered"], yard["departed"], yard["now"]) == (5, 2, 3)
    assert f"{tmp_path}/discs.mp4, gate: 2 to the left, 3 to the right\n" in ran.stderr
    events = read_lines(out / "events.jsonl")
    crossings = [e for e in events if e["kind"] == "cross"]
    assert Counter(e["direction"] for e in crossings) == {"left": 2, "right": 3}
    assert list(crossings[0]) == [
        "time", "source", "frame", "kind", "area", "direction", "track", "class",
    ]  # fmt: skip
    # The centre of a disc is on the line in frame 37, at 1.85 s.
    assert all(e["class"] == "disc" and 1.7 < e["time"] < 2.1 for e in crossings)
    assert str(out / "events.jsonl") in ran.stdout.splitlines()
    dwell = [e["dwell"] for e in events if e["kind"] == "leave"]
    assert all(1.0 < seconds < 1.5 for seconds in dwell)  # from 580 to 400 in 26 frames
    assert (yard["dwell_sum"], yard["dwell_mean"]) == pytest.approx((sum(dwell), sum(dwell) / 2))


@pytest.mark.parametrize(
    ("data", "track", "message"),
    [
        ({"lines": [{"name": "g", "start": [0, 0], "end": [9, 9]}]}, [], "Give --track."),
        ({}, ["--track"], "has no regions. Add some, or leave out --region."),
    ],
)
def test_areas_without_use(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    data: dict[str, Any],
    track: list[str],
    message: str,
) -> None:
    areas = tmp_path / "areas.json"
    areas.write_text(json.dumps({"size": [9, 9], **data}))
    more = ["--region", areas, "--out", tmp_path / "out", *track]
    ran = retinart("detect", model_path, images, *more)
    assert (ran.returncode, ran.stdout) == (2, "") and message in ran.stderr
