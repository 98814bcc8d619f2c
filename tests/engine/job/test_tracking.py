"""Ids through frames. What needs the package `trackers` skips where it is not installed."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.errors import pip_command
from retinart.engine.job.draw import draw
from retinart.engine.job.records import Record
from retinart.engine.job.tracking import Trackers
from support import make_picture, read_lines


def _found(*boxes: tuple[float, float, float, float], score: float = 0.9) -> Detections:
    n = len(boxes)
    return Detections(
        xyxy=np.array(boxes, np.float32).reshape(n, 4),
        confidence=np.full(n, score, np.float32),
        class_id=np.zeros(n, np.int32),
    )


@pytest.fixture(params=["bytetrack", "sort"])
def trackers(request: pytest.FixtureRequest) -> Trackers:
    pytest.importorskip("trackers", reason="the extra `track` is not installed")
    return Trackers([25.0, 25.0], request.param)


def test_ids_stay_with_their_objects(trackers: Trackers) -> None:
    seen = []
    for i in range(8):
        left, right = (10 + 3 * i, 10, 50 + 3 * i, 60), (300 - 2 * i, 20, 360 - 2 * i, 90)
        boxes = (left, right) if i % 2 else (right, left)  # their order says nothing
        found = trackers(0, _found(*boxes))
        assert found.tracker_id is not None
        ids = found.tracker_id if i % 2 else found.tracker_id[::-1]
        seen.append(tuple(int(n) for n in ids))
        np.testing.assert_array_equal(found.xyxy, np.array(boxes, np.float32))
    assert len(set(seen[2:])) == 1 and len(set(seen[-1])) == 2 and min(seen[-1]) >= 0


def test_sources_have_trackers_of_their_own(trackers: Trackers) -> None:
    for i in range(4):
        first = trackers(0, _found((10 + i, 10, 50 + i, 60)))
        second = trackers(1, _found((10 + i, 10, 50 + i, 60)))
    assert first.tracker_id is not None and second.tracker_id is not None
    assert first.tracker_id[0] >= 0 and second.tracker_id[0] >= 0


def test_nothing_and_weak_detections(trackers: Trackers) -> None:
    for _ in range(4):
        none, weak = trackers(0, _found()), trackers(1, _found((0, 0, 9, 9), score=0.1))
    assert none.tracker_id is not None and len(none.tracker_id) == 0
    assert weak.tracker_id is not None and weak.tracker_id.tolist() == [-1]


def test_a_missing_package_is_named(
    retinart: Callable[..., CompletedProcess[str]],
    model_path: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    monkeypatch.setitem(sys.modules, "supervision", None)
    ran = retinart("detect", model_path, video, "--track", "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.endswith(
        "retinart: Tracking needs the package trackers, which is not installed. Install it with "
        f"`{pip_command('track')}` in retinart's folder.\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_tracked_video(
    retinart: Callable[..., CompletedProcess[str]], model_path: Path, video: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trackers", reason="the extra `track` is not installed")
    out, coco, rows = tmp_path / "out", tmp_path / "r.json", tmp_path / "r.csv"
    more = ["--out", out, "--coco", coco, "--csv", rows]
    assert retinart("detect", model_path, video, "--track", *more).returncode == 0
    found = [d for line in read_lines(out / "detections.jsonl") for d in line["detections"]]
    ids = [d["track_id"] for d in found]
    assert None in ids and any(i is not None for i in ids)
    assert [d["track_id"] for d in json.loads(coco.read_text())] == ids
    with rows.open(newline="") as file:
        told = [row["track_id"] for row in csv.DictReader(file)]
    assert told == ["" if i is None else str(i) for i in ids]
    assert "track" in json.loads((out / "summary.json").read_text())["stages_ms"]


def test_ids_are_picked_and_written_and_drawn() -> None:
    found = _found((5, 30, 60, 80), (70, 30, 120, 90))
    tracked = Detections(
        xyxy=found.xyxy,
        confidence=found.confidence,
        class_id=found.class_id,
        tracker_id=np.array([7, -1], np.int32),
    )
    turned = tracked[::-1].tracker_id
    assert turned is not None and turned.tolist() == [-1, 7]
    record = Record(source="s", frame=0, time_ms=0.0, width=9, height=9, detections=tracked)
    assert [d["track_id"] for d in record.to_json(["x"])["detections"]] == [7, None]
    picture = make_picture(0)
    assert (draw(picture, tracked, ["x"]) != draw(picture, found, ["x"])).any()
    np.testing.assert_array_equal(draw(picture, tracked[1], ["x"]), draw(picture, found[1], ["x"]))
