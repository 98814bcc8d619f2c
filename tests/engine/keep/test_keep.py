"""Rules that say which detections are kept: each alone, together, and on every runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from retinart import BadInput, Detections, Detector, Keep, Thresholds
from retinart.engine.keep.areas import Areas, Line, Polygon, Region, read_areas
from retinart.engine.keep.keeper import Keeper, contains
from retinart.engine.keep.rules import parse_conf
from support import made_info, make_picture

Command = Callable[..., CompletedProcess[str]]
SQUARE = ((10.0, 10.0), (50.0, 10.0), (50.0, 50.0), (10.0, 50.0))
# Three overlapping boxes, then a small one far away.
FOUND = Detections(
    xyxy=np.array([[0, 0, 40, 40], [2, 0, 42, 40], [4, 0, 44, 40], [80, 80, 86, 90]], np.float32),
    confidence=np.array([0.9, 0.8, 0.7, 0.6], np.float32),
    class_id=np.array([0, 1, 2, 1], np.int32),
)


def _kept(size: tuple[int, int] = (100, 100), **rules: Any) -> list[int]:
    """The indices of `FOUND` that are kept; each has a score of its own."""
    found = Keeper(Keep(**rules), made_info(), Thresholds(score_thresh=0.1))(FOUND, size)
    return [FOUND.confidence.tolist().index(score) for score in found.confidence.tolist()]


def test_each_rule_alone() -> None:
    assert _kept() == [0, 1, 2, 3]
    assert _kept(classes=("disc", " GRÖSSE")) == [0, 1, 3]  # case and spaces do not count
    assert _kept(conf={"größe": 0.6}) == [0, 1, 2]  # a score must exceed it
    assert _kept(conf={"größe": 0.59}) == [0, 1, 2, 3]
    assert _kept(min_size=7) == [0, 1, 2] and _kept(min_size=6) == [0, 1, 2, 3]
    assert _kept(agnostic=True) == [0, 3]
    assert _kept(agnostic=True, classes=("ring",)) == [2]  # what is left out drops nothing


@pytest.mark.parametrize(
    ("regions", "anchor", "kept"),
    [
        ([("inside", SQUARE)], "center", [0, 1, 2]),
        ([("outside", SQUARE)], "center", [3]),
        ([("inside", ((0, 0), (21, 0), (21, 100), (0, 100)))], "center", [0]),
        ([("inside", ((0, 30), (100, 30), (100, 60), (0, 60)))], "bottom", [0, 1, 2]),
        ([("inside", ((0, 30), (100, 30), (100, 60), (0, 60)))], "center", []),
        ([("inside", SQUARE), ("inside", ((70, 70), (99, 70), (99, 99)))], "center", [0, 1, 2]),
        ([("inside", SQUARE), ("outside", ((0, 0), (21, 0), (21, 99)))], "center", [1, 2]),
        ([("inside", SQUARE), ("outside", ((0, 0), (99, 0), (99, 22), (0, 22)))], "center", []),
    ],
)
def test_regions(regions: Any, anchor: Any, kept: list[int]) -> None:
    made = tuple(Region(name=str(i), points=p, keep=k) for i, (k, p) in enumerate(regions))
    areas = Areas(size=(100, 100), regions=made, anchor=anchor)
    assert _kept(areas=areas) == kept


def test_regions_are_scaled_to_the_picture() -> None:
    twice = tuple((2 * x, 4 * y) for x, y in SQUARE)
    areas = Areas(size=(200, 400), regions=(Region(name="a", points=twice),))
    assert _kept(areas=areas) == [0, 1, 2]
    assert _kept((400, 200), areas=areas) == [3]  # it begins at (20, 40) there


def test_a_concave_polygon() -> None:
    shape = np.array([[0, 0], [10, 0], [10, 10], [5, 2], [0, 10]], np.float64)
    points = np.array([[5, 1], [5, 5], [1, 6], [9, 6], [11, 5], [-1, 5], [5, -1]], np.float64)
    assert contains(shape, points).tolist() == [True, False, True, True, False, False, False]


def test_scores_by_class() -> None:
    assert parse_conf("0.4") == (0.4, {})
    assert parse_conf("car=0.6, traffic light=.5,0.4") == (0.4, {"car": 0.6, "traffic light": 0.5})
    assert parse_conf("a=b=0.5") == (None, {"a=b": 0.5})
    for text in ("", "car", "car=", "=0.5", "0.4,0.5", "car=0.4,car=0.5", "nan", "car:0.4"):
        with pytest.raises(BadInput, match="is not a score"):
            parse_conf(text)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"regions": [{"name": "a", "points": [[0, 0], [101, 0], [0, 9]]}]}, r"\(101, 0\): the pi"),
        ({"regions": [{"name": "a", "points": [[0, 0], [-1, 0], [0, 9]]}]}, r"the point \(-1, 0\)"),
        ({"regions": [{"name": "a", "points": [[0, 0], [9, 9], [9, 0], [0, 9]]}]}, "crosses itse"),
        ({"zones": [{"name": "z", "points": [[0, 0], [9, 0], [4, 0], [4, 9]]}]}, "crosses itself"),
        ({"zones": [{"name": "z", "points": [[0, 0], [9, 0], [9, 9], [4, 0]]}]}, "crosses itself"),
        (
            {"zones": [{"name": "z", "points": [[0, 0], [8, 0], [8, 8], [4, 0], [0, 8]]}]},
            "crosses itself",
        ),
        ({"zones": [{"name": "z", "points": [[0, 0], [9, 9]]}]}, "the zone z has 2 points"),
        ({"zones": [{"name": "z", "points": [[0, 0], [4, 4], [9, 9]]}]}, "crosses|has no area"),
        ({"lines": [{"name": "l", "start": [5, 5], "end": [5, 5]}]}, "the line l has no length"),
        ({"lines": [{"name": "l", "start": [5, 5], "end": [5, 500]}]}, r"the point \(5, 500\)"),
        ({"lines": [{"name": "l", "start": [5, 5]}]}, r"the field lines\[0\].end is missing"),
        ({"regions": [{"name": "a", "points": "x"}]}, r"the field regions\[0\].points has to be"),
        ({"gates": []}, "the field gates is not known"),
        ({"zones": [{"name": "z", "points": [[0, 0]] * 1001}]}, "the areas have 1,001 points"),
    ],
)
def test_areas_that_make_no_sense(tmp_path: Path, more: Any, message: str) -> None:
    path = tmp_path / "areas.json"
    path.write_text(json.dumps({"size": [100, 100], **more}))
    with pytest.raises(BadInput, match=message) as caught:
        read_areas(path)
    assert str(caught.value).startswith(f"{path} cannot be used: ")


def test_areas_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "areas.json"
    data = {
        "size": [100, 100],
        "regions": [{"name": "a", "points": SQUARE, "keep": "outside"}],
        "lines": [{"name": "l", "start": [0, 0], "end": [9, 0]}],
        "zones": [{"name": "z", "points": SQUARE}],
        "anchor": "bottom",
    }
    path.write_text(json.dumps(data))
    assert read_areas(path) == Areas(
        size=(100, 100),
        regions=(Region(name="a", points=SQUARE, keep="outside"),),
        lines=(Line(name="l", start=(0, 0), end=(9, 0)),),
        zones=(Polygon(name="z", points=SQUARE),),
        anchor="bottom",
    )


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_detector_keeps_the_same_on_every_runtime(model_path: Path, runtime: Any) -> None:
    picture = make_picture(3)
    half = Areas(
        size=(2, 2), regions=(Region(name="left", points=((0, 0), (1, 0), (1, 2), (0, 2))),)
    )
    keep = Keep(classes=("disc", "ring"), conf={"disc": 0.3}, min_size=9, areas=half)
    with Detector(model_path, runtime=runtime) as detector:
        everything = detector(picture)
    with Detector(model_path, runtime=runtime, keep=keep) as detector:
        found = detector(picture)
        (streamed,) = detector([picture])
    sides = everything.xyxy[:, 2:] - everything.xyxy[:, :2]
    center = everything.xyxy[:, ::2].mean(axis=1)
    wanted = (everything.class_id == 2) | (
        (everything.class_id == 0) & (everything.confidence > 0.3)
    )
    wanted &= (sides >= 9).all(axis=1) & (center < 64)
    assert 3 < wanted.sum() < len(everything) - 3
    np.testing.assert_array_equal(found.xyxy, everything.xyxy[wanted])
    np.testing.assert_array_equal(streamed.confidence, everything.confidence[wanted])
    assert everything.limits and found.limits == everything.limits  # more may be there, as before


def test_a_class_may_have_a_score_below_the_others(model_path: Path) -> None:
    picture = make_picture(3)
    with Detector(model_path, conf=0.4, keep=Keep(conf={"ring": 0.1}), max_det=5000) as detector:
        found, thresholds = detector(picture), detector.thresholds
    assert thresholds.score_thresh == 0.4
    ring = found.class_id == 2
    assert found.confidence[ring].min() < 0.2 and found.confidence[~ring].min() > 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "disk"], "the model has no class 'disk': its classes are disc, "),
        (["--conf", "car=0.5"], "the model has no class 'car'"),
        (["--conf", "disc=1.5"], "--conf of disc is 1.5. Give a value from 0 to 1."),
        (["--conf", "high"], "'high' is not a score. Give one such as 0.4"),
        (["--min-size", "-1"], "--min-size is -1.0. Give a number of pixels from 0."),
        (["--region", "none.json"], "none.json"),
        (["--region", "lines.json"], " has no regions. Add some, or leave out --region."),
    ],
)
@pytest.mark.parametrize("command", ["detect", "benchmark"])
def test_rules_that_do_not_fit(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lines.json").write_text('{"size": [9, 9]}')
    source = [images] if command == "detect" else ["--images", images]
    ran = retinart(command, model_path, *source, "--out", "out", *options)
    assert (ran.returncode, ran.stdout) == (2, "") and message in ran.stderr
    assert command == "benchmark" or not Path("out").exists()


def test_detect_keeps_what_the_options_say(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    areas = tmp_path / "areas.json"
    square = [[0, 0], [64, 0], [64, 96], [0, 96]]
    areas.write_text(
        json.dumps({"size": [128, 96], "regions": [{"name": "left", "points": square}]})
    )
    out = tmp_path / "out"
    rules = ["--classes", "disc, ring", "--conf", "ring=0.3,0.2", "--min-size", "8"]
    more = ["--region", areas, "--agnostic-nms", "--out", out]
    ran = retinart("detect", model_path, images, *rules, *more)
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    rows = [found for line in lines for found in line["detections"]]
    assert {row["class"] for row in rows} == {"disc", "ring"}
    assert all(row["score"] > (0.3 if row["class"] == "ring" else 0.2) for row in rows)
    assert all(row["box"][0] + row["box"][2] < 128.1 for row in rows)
    assert all(row["box"][2] - row["box"][0] >= 7.9 for row in rows)


@pytest.mark.parametrize(
    ("size", "what"),
    [
        ([128, 96], ""),
        ([256, 193], "for 256x193: they are scaled"),
        ([96, 128], "for 96x128: they are stretched, because the shapes differ"),
    ],
)
def test_areas_of_another_size_are_told(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, size: list[int], what: str
) -> None:
    """Seen: areas for 432x768 were stretched to 640x480 without a line."""
    corners = [[0, 0], [90, 0], [0, 90]]
    areas, out = tmp_path / "areas.json", tmp_path / "out"
    areas.write_text(json.dumps({"size": size, "regions": [{"name": "a", "points": corners}]}))
    ran = retinart("detect", model_path, images, "--region", areas, "--out", out)
    line = f"{images / '0.png'} has 128x96, and the areas are {what}"
    notes = json.loads((out / "summary.json").read_text())["notes"]
    assert [note for note in notes if "areas" in note] == ([line] if what else [])
    assert ran.stderr.count("the areas are") == bool(what)
