"""`retinart curve` on the shipped model at two small scales. No figure of time is asserted."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2

from retinart.benchmarks.curve import fastest, is_pareto
from retinart.benchmarks.demo import shipped_checkpoint
from retinart.engine.openvino_runner import has_bf16

Command = Callable[..., CompletedProcess[str]]


def test_curve(retinart: Command, scenes: Path, tmp_path: Path) -> None:
    """All points are there, and a second run makes again only what is gone or new."""
    out = tmp_path / "curve"
    data = ("--images", scenes / "images", "--annotations", scenes / "instances.json")
    arguments: tuple[str | Path, ...] = (
        "curve", shipped_checkpoint(), *data, "--calibration-images", scenes / "images",
        "--calibration-num", "3", "--num-images", "2", "--repeats", "1", "--threads", "1",
        "--out", out, "--imgsz",
    )  # fmt: skip
    ran = retinart(*arguments, "128", "256")
    assert ran.returncode == 0, ran.stderr
    curve = json.loads((out / "curve.json").read_text())
    points = curve["points"]
    assert [(p["imgsz"], p["precision"]) for p in points] == [
        (128, "fp32"), (128, "int8"), (256, "fp32"), (256, "int8"),
    ]  # fmt: skip
    assert points[2]["ap"] > points[0]["ap"] > 0.02  # it was trained at 256
    assert abs(points[3]["ap"] - points[2]["ap"]) < 0.1
    assert curve["taken_over"] == 0 and any(p["pareto"] for p in points)
    assert "Fastest within 1 AP of the best: tiny" in ran.stdout
    with (out / "curve.csv").open(newline="") as file:
        assert [float(row["ap"]) for row in csv.DictReader(file)] == [p["ap"] for p in points]
    page = (out / "report.html").read_text()
    for text in ("Table 1e", "Figure 2, recalled", "R-FCN", "tiny int8", "Pareto point"):
        assert text in page, text
    assert not re.findall(r'(?:src|href)="[^"#]', page)
    assert cv2.imread(str(out / "curve.png")) is not None
    assert (out / "curve.svg").read_text().rstrip().endswith("</svg>")

    (out / "models" / "tiny-128.int8.onnx").write_bytes(b"damaged")
    ran = retinart(*arguments, "128")
    assert ran.returncode == 0, ran.stderr
    made = [line for line in ran.stderr.splitlines() if ".onnx" in line and "/" not in line]
    assert made == ["calibrate tiny-128.int8.onnx"]
    again = json.loads((out / "curve.json").read_text())
    assert again["taken_over"] == 4
    assert [(p["ap"], p["ms"]) for p in again["points"]] == [(p["ap"], p["ms"]) for p in points[:2]]

    if has_bf16():
        ran = retinart(*arguments, "128", "--precisions", "fp32", "--compute", "bf16")
        assert ran.returncode == 0, ran.stderr
        more = json.loads((out / "curve.json").read_text())
        assert [p["precision"] for p in more["points"]] == ["bf16"]
        assert more["taken_over"] == 1  # the file
        assert 0 < abs(more["points"][0]["ap"] - points[0]["ap"]) < 0.05


def test_which_points_are_named() -> None:
    def point(ms: float, ap: float) -> dict[str, Any]:
        return {"ms": {"p50": ms}, "ap": ap}

    points = [point(1, 0.2), point(2, 0.3), point(3, 0.3), point(2, 0.1), point(2, 0.3)]
    assert [is_pareto(p, points) for p in points] == [True, True, False, False, True]
    assert fastest([point(1, 0.288), point(3, 0.292), point(5, 0.3)]) == point(3, 0.292)


def test_bad_input(retinart: Command, scenes: Path, tmp_path: Path) -> None:
    checkpoint = shipped_checkpoint()
    images = ("--images", scenes / "images", "--annotations", scenes / "instances.json")
    fp32 = ("--precisions", "fp32", "--out", tmp_path / "out")
    for given, message in (
        ((checkpoint, *images, "--out", tmp_path / "out"), "Give --calibration-images"),
        ((checkpoint, checkpoint, *images, *fp32), "two checkpoints have one name"),
        ((tmp_path / "no.pt", *images, *fp32), "there is no checkpoint at"),
        ((checkpoint, *images, *fp32, "--imgsz", "128", "128"), "imgsz is [128, 128]"),
        ((checkpoint, "--images", tmp_path / "n", *images[2:], *fp32), "there is no"),
    ):
        ran = retinart("curve", *given)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    assert not (tmp_path / "out").exists()
