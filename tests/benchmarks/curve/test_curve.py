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
import pytest

from retinart.benchmarks.curve import run as curve_module
from retinart.benchmarks.curve.report import report, write_results
from retinart.benchmarks.curve.run import fastest, is_pareto
from retinart.benchmarks.demo import shipped_checkpoint
from retinart.benchmarks.peers import find as peers
from retinart.engine.runtime.openvino_runner import has_bf16

Command = Callable[..., CompletedProcess[str]]


def test_curve(
    retinart: Command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All points are there, and a second run makes again only what is gone or new."""
    monkeypatch.setattr(peers, "find_gpus", list)
    out = tmp_path / "curve"
    data = ("--images", scenes / "images", "--annotations", scenes / "instances.json")
    arguments: tuple[str | Path, ...] = (
        "curve", shipped_checkpoint(), *data, "--calibration-images", scenes / "images",
        "--calibration-num", "3", "--num-images", "2", "--repeats", "1", "--threads", "1",
        "--peers", "onnxruntime", "torch-compile-fp16", "--out", out, "--imgsz",
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
        rows = list(csv.DictReader(file))
    assert [float(row["ap"]) for row in rows] == [p["ap"] for p in points]
    _check_timings(curve, rows, ran.stdout)
    _check_page((out / "report.html").read_text())
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

    monkeypatch.setattr(curve_module, "code_of_timing", lambda: "other code")
    ran = retinart(*arguments, "128")
    made = [line for line in ran.stderr.splitlines() if ".onnx" in line and "/" not in line]
    assert made == ["time tiny-128.onnx"]

    if has_bf16():
        ran = retinart(*arguments, "128", "--precisions", "fp32", "--compute", "bf16")
        assert ran.returncode == 0, ran.stderr
        more = json.loads((out / "curve.json").read_text())
        assert [p["precision"] for p in more["points"]] == ["bf16"]
        assert more["taken_over"] == 1  # the file
        assert 0 < abs(more["points"][0]["ap"] - points[0]["ap"]) < 0.05


def _check_timings(curve: dict[str, Any], rows: list[dict[str, str]], stdout: str) -> None:
    """Each checkpoint and scale keeps its whole benchmark; the table against peers is of them."""
    assert [(t["checkpoint"], t["imgsz"]) for t in curve["timings"]] == [
        ("tiny", 128), ("tiny", 256),
    ]  # fmt: skip
    models = [m for t in curve["timings"] for m in t["models"]]
    assert [float(row["infer_p50_ms"]) for row in rows] == [m["ms"]["infer"]["p50"] for m in models]
    for timing in curve["timings"]:
        assert [p["peer"] for p in timing["peers"]] == ["ONNX Runtime"]
        assert all(len(m["runs_ms"]["nms"]) == 2 for m in timing["models"])
    assert "| checkpoint | precision | imgsz | ms p50 | ONNX Runtime |" in stdout
    ratio = models[-1]["times_as_fast_as"]["ONNX Runtime"]
    assert re.search(rf"tiny \| int8 \| 256 \| [0-9.]+ \| {ratio['value']:.2f} \(", stdout)
    assert stdout.count("Left out: torch-compile-fp16, as there is no GPU here.") == 1
    assert f"he reference workload varied by {curve['noise']:.0%}" in stdout


def _check_page(page: str) -> None:
    """One file with everything; what is folded away does not share ids with what is not."""
    for text in (
        "Table 1e", "Figure 2, recalled", "R-FCN", "tiny int8", "Pareto point", "Environment",
        "as fast as the peers", "<summary>tiny at 128: fp32 ", "tiny-256.int8.onnx, 2 runs",
        "share of peak",
    ):  # fmt: skip
        assert text in page, text
    assert page.count("Left out: torch-compile-fp16") == 1
    assert page.count("<details>") == 2 and page.count("<svg") == 1 + 2 * 2
    assert not re.findall(r'(?:src|href)="[^"#]', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', page)) <= set(ids)


def test_an_older_curve_is_still_read(tmp_path: Path) -> None:
    """One of before single timings were kept."""
    old = json.loads(Path("benchmarks/results/bccd/curve.json").read_text(encoding="utf-8"))
    old.pop("timings", None)
    for point in old["points"]:
        point.pop("stages", None)
    assert "Fastest within 1 AP of the best" in report(old)
    written = write_results(tmp_path, old)
    assert "<details" not in written[2].read_text()


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
        ((checkpoint, *images, *fp32, "--peers", "tensorflow"), "there is no peer 'tensorflow'"),
        ((checkpoint, *images, *fp32, "--repeats", "0"), "repeats is 0"),
    ):
        ran = retinart("curve", *given)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    assert not (tmp_path / "out").exists()
