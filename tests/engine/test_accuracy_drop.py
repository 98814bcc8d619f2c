"""`retinart eval A --against B`: a gate with a table and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from retinart.engine.accuracy_drop import change_text, count, points_gained
from retinart.engine.detections import Detections
from retinart.engine.evaluation.coco import CocoImage, load_coco
from retinart.engine.evaluation.gate import Change
from support import files_below

pytest.importorskip("pycocotools")

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def worse(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` that is blind for discs."""
    model = onnx.load(tiny_path)
    for initializer in model.graph.initializer:
        if initializer.name.startswith("cls_head.output") and initializer.name.endswith(".bias"):
            values = numpy_helper.to_array(initializer).copy()
            values[0::6] -= 20  # (anchor, class) with six classes; disc is the first
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    path = tmp_path_factory.mktemp("worse") / "worse.onnx"
    onnx.save(model, path)
    return path


def test_the_gate(
    retinart: Command, tiny_path: Path, worse: Path, scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "compare"
    data = ("--images", scenes / "images", "--annotations", scenes / "instances.json")
    ran = retinart("eval", tiny_path, "--against", worse, *data, "--max-drop", "1", "--out", out)
    assert ran.returncode == 1
    assert "worse.onnx loses " in ran.stderr and "limit is a loss of 1: fail\n" in ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["tiny.onnx", "worse.onnx", "change", "95%", "interval"]
    assert lines[1].split()[0] == "AP" and float(lines[1].split()[3]) < -5
    by_class = lines.index("AP by class (16 images)")
    assert lines[by_class + 1].split()[0] == "disc", "the largest loss comes first"
    assert lines[by_class + 1].split()[2] == "0.0"
    unchanged = [line.split() for line in lines[by_class + 2 :]]
    assert all(abs(float(row[3])) < 1 for row in unchanged)

    names = files_below(out)
    assert names[0] == "comparison.json" and names[1].startswith("worst-1-")
    result = json.loads((out / "comparison.json").read_text())
    assert result["drop_points"] > 1 and len(result["worst"]) == len(names) - 1
    losses = [entry["loss"] for entry in result["worst"]]
    assert losses == sorted(losses, reverse=True) and losses[-1] > 0
    picture = cv2.imread(str(out / names[1]))
    assert picture is not None and picture.shape[1] == 3 * 320 and picture.shape[0] > 256

    ran = retinart("eval", tiny_path, "--against", worse, *data, "--max-drop", "90", "--out", out,
                   "--overwrite")  # fmt: skip
    assert ran.returncode == 0 and "limit is a loss of 90: pass\n" in ran.stderr
    gate = ("eval", worse, "--against", tiny_path, *data, "--max-drop", "0", "--out")
    ran = retinart(*gate, out)
    assert ran.returncode == 2 and f"{out} holds the results of another run" in ran.stderr
    ran = retinart(*gate, tmp_path / "gain")
    assert ran.returncode == 0, "a gain is not a drop"
    assert "tiny.onnx gains " in ran.stderr and "; the limit is a loss of 0: pass\n" in ran.stderr


def test_json_and_no_budget(
    retinart: Command, tiny_path: Path, scenes: Path, tmp_path: Path
) -> None:
    data = ("--images", scenes / "images", "--annotations", scenes / "instances.json")
    out = tmp_path / "compare"
    ran = retinart("eval", tiny_path, "--against", tiny_path, *data, "--json", "--out", out)
    assert ran.returncode == 0
    result = json.loads(ran.stdout)
    assert result["drop_points"] == 0 and result["worst"] == []
    assert result["first"]["figures"] == result["second"]["figures"]
    assert files_below(out) == ["comparison.json"]
    ran = retinart("eval", tiny_path, *data, "--max-drop", "1")
    assert ran.returncode == 2 and "Give the second with --against" in ran.stderr


def test_hits_and_false_detections(scenes: Path) -> None:
    """Each object counts once; the class must be equal; crowds are neither hit nor miss."""
    first = load_coco(scenes / "instances.json", scenes / "images").images[0]
    image = CocoImage(
        image_id=first.image_id, path=first.path, height=100, width=100,
        boxes=np.array([[0, 0, 20, 20], [50, 50, 90, 90], [0, 60, 40, 100]], np.float32),
        labels=np.array([0, 1, 0]), crowd=np.array([False, False, True]),
        areas=np.ones(3, np.float32), truth=first.truth,
    )  # fmt: skip

    def found(*rows: tuple[float, ...]) -> Detections:
        return Detections(
            xyxy=np.array([r[:4] for r in rows], np.float32).reshape(-1, 4),
            confidence=np.array([r[4] for r in rows], np.float32),
            class_id=np.array([r[5] for r in rows], np.int32),
        )

    truth, model = ("disc", "Ring"), ("ring", "disc")
    near = (1, 1, 21, 21)
    for rows, expected in (
        ((), (0, 0)),
        (((*near, 0.9, 1),), (1, 0)),
        (((*near, 0.9, 1), (*near, 0.8, 1)), (1, 1)),  # twice the same
        (((*near, 0.9, 0),), (0, 1)),  # another class
        (((*near, 0.2, 1),), (0, 0)),  # unsure
        (((50, 50, 90, 90, 0.9, 0), (0, 60, 30, 90, 0.8, 1)), (1, 0)),  # on the crowd
        (((11, 11, 31, 31, 0.9, 1),), (0, 1)),  # too far
    ):
        assert count(image, truth, found(*rows), model) == expected, rows


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ((-0.71, -1.2, 0.1), "loses 0.71 AP (95% interval of the change -1.20 to +0.10)"),
        ((0.123, 0.1, 0.2), "gains 0.12 AP (95% interval of the change +0.10 to +0.20)"),
        ((0.004, 0.0, 0.0), "has the same AP (95% interval of the change +0.00 to +0.00)"),
        ((-0.0, -0.0, 0.0), "has the same AP (95% interval of the change -0.00 to +0.00)"),
    ],
)
def test_a_gain_is_not_called_a_loss(change: tuple[float, float, float], text: str) -> None:
    """Seen: "loses -0.12 AP, and 0.5 are allowed"."""
    value, low, high = change
    assert change_text(Change(value=value, low=low, high=high)) == text


def test_a_change_that_rounds_to_zero_has_no_minus() -> None:
    """Seen in the demo: 62.9, 62.9 and "-0.0"."""
    assert points_gained(0.6292, 0.6288) == "+0.0"
    assert (points_gained(0.5, 0.4), points_gained(0.5, 0.501)) == ("-10.0", "+0.1")


def test_a_gate_that_cannot_know_says_so(
    retinart: Command, tiny_path: Path, worse: Path, scenes: Path, tmp_path: Path
) -> None:
    data = ("--images", scenes / "images", "--annotations", scenes / "instances.json")
    out = ("--out", tmp_path / "out", "--overwrite")
    compare = ("eval", tiny_path, "--against", worse, *data, *out)
    whole = json.loads(retinart(*compare, "--json").stdout)
    middle = f"{whole['drop_points'] + 0.3:.3f}"
    for undecided, code in (("fail", 1), ("pass", 0)):
        ran = retinart(*compare, "--max-drop", middle, "--undecided", undecided)
        assert ran.returncode == code
        said = rf"limit is a loss of {float(middle):g}: undecided, as \d+ pictures allow anything"
        assert re.search(said, ran.stderr)
    recall = ("--max-recall-drop", "5", "--at-precision", "50")
    ran = retinart(*compare, *recall)
    assert ran.returncode == 1
    assert "of disc at a precision of 50; the limit is a loss of 5: fail" in ran.stderr
    for options, said in (
        (("--max-recall-drop", "5"), "need each other"),
        (("--at-precision", "90"), "need each other"),
        (("--max-recall-drop", "5", "--at-precision", "0.9"), "Give points above 1, such as 90"),
        (("--max-recall-drop", "nan", "--at-precision", "90"), "Give points of recall, 0 to 100"),
    ):
        ran = retinart(*compare, *options)
        assert ran.returncode == 2 and said in ran.stderr
