"""The paper's grid: its steps on a small network, and its sums on made-up times."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinart.benchmarks.grid import __main__ as grid
from retinart.benchmarks.grid import steps as grid_steps
from retinart.benchmarks.grid.report import report, write_results
from retinart.benchmarks.grid.settings import PEER, GridSettings
from retinart.benchmarks.latency.run import BenchmarkSettings
from retinart.benchmarks.peers import torchvision_shim
from retinart.benchmarks.timing import machine
from retinart.engine.detector import Detector
from retinart.engine.errors import CheckFailed


def timing(backbone: str, int8: float, peak: float) -> dict[str, Any]:
    """What `benchmark` would say: torchvision 100 ms, FP32 50 ms, of which infer has 40."""

    def row(total: float) -> dict[str, Any]:
        stages = {"total": total, "decode": 1, "resize": 1, "copy": 0, "infer": total - 10,
                  "nms": 8, "results": 1}  # fmt: skip
        return {
            "ms": {k: dict.fromkeys(("p50", "p90", "p99"), float(v)) for k, v in stages.items()},
            "runs_ms": {"total": [total] * 4}, "input": [64, 96], "inputs": 1, "detections": 30.0,
            "peak_mib": 200.0, "gmac": 2.0, "load_ms": 9.0, "first_ms": 9.0, "streams": 1,
            "images_per_second": 1000 / total, "share_of_peak": 0.5, "imgsz": None,
        }  # fmt: skip

    def model(precision: str, ratio: float) -> dict[str, Any]:
        interval = {"value": ratio, "low": ratio - 0.1, "high": ratio + 0.1}
        return {**row(100 / ratio), "precision": precision, "model": f"{backbone} {precision}",
                "times_as_fast_as_first": interval,
                "times_as_fast_as": {PEER: interval}}  # fmt: skip

    return {
        "backbone": backbone, "imgsz": 400, "images": ["a.jpg"], "repeats": 4, "threads": 2,
        "noise": 0.3, "gpu_peak_gops": None,
        "peak_gops": {"fp32": peak, "int8": 4 * peak, "bf16": None},
        "machine": {"cpu": "a CPU", "versions": {"openvino": "1"}},
        "models": [model("fp32", 2.0), model("int8", int8)],
        "peers": [{**row(100), "peer": PEER,
                   "what": "torchvision's RetinaNet, eager mode"}],
        "left_out": [],
    }  # fmt: skip


def test_summary(tmp_path: Path) -> None:
    result = grid.summary([timing("resnet50", 5.0, 150), timing("resnet101", 4.4, 200)])
    first, _, _, last = result["points"]
    assert result["peak_gops"] == {"fp32": 200, "int8": 800}  # the best of both
    assert first["ms_at_peak"] == pytest.approx(20) and first["share_of_peak"] == pytest.approx(0.5)
    assert first["ratio_at_peak"] == pytest.approx(100 / 30)  # 10 ms outside of infer stay
    assert [p["reached"] for p in result["points"]] == [True, True, True, False]
    assert last["backbone"] == "resnet101" and last["precision"] == "int8"
    result["command"] = "python -m retinart.benchmarks.grid"
    text = report(result)
    assert "INT8: 4.40 to 5.00 times as fast; below 4.5 at 1 of 2 points: resnet101 400." in text
    assert "FP32: 2.00 to 2.00 times as fast; at least 1.35 at all 2 points." in text
    assert text.count("BELOW") == 1 and "WARNING: the reference workload varied" in text
    written = write_results(tmp_path / "grid", result)
    assert [path.suffix for path in written] == [".md", ".json", ".csv", ".html"]
    assert "4.40 (4.30 to 4.50) BELOW" in text
    with written[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["ratio"]) for row in rows] == [2.0, 5.0, 2.0, 4.4]
    assert (rows[0]["infer_p50_ms"], rows[0]["peer_infer_p50_ms"]) == ("40.0", "90.0")
    page = written[3].read_text()
    assert "<summary>resnet101 at 400: fp32 50.0 ms, int8 22.7 ms, torchvision eager 100.0" in page
    assert page.count("<details>") == 2 and page.count("<svg") == 1 + 2 * 2


def test_a_grid_of_before_its_timings_were_kept(tmp_path: Path) -> None:
    result = grid.summary([timing("resnet50", 5.0, 150)]) | {"command": "grid"}
    del result["timings"]
    assert "<details" not in write_results(tmp_path / "grid", result)[3].read_text()


def test_bf16_has_its_own_limit_and_the_files_aim() -> None:
    one = timing("resnet50", 5.0, 150)
    one["peak_gops"]["bf16"] = 300
    interval = {"value": 4.6, "low": 4.5, "high": 4.7}
    both = one["models"][1] | {"precision": "int8+bf16", "times_as_fast_as": {PEER: interval}}
    one["models"][1:1] = [one["models"][0] | {"precision": "bf16"}]
    one["models"].append(both)
    result = grid.summary([one])
    fp32, bf16, int8, mixed = result["points"]
    assert bf16["ms_at_peak"] == pytest.approx(fp32["ms_at_peak"] / 2)
    assert mixed["ms_at_peak"] == int8["ms_at_peak"] and mixed["reached"]
    result["command"] = "grid"
    text = report(result)
    assert "150 GFLOP/s in FP32, 300 in BF16, 600 GOP/s in INT8" in text
    assert "INT8+BF16: 4.60 to 4.60 times as fast; at least 4.5 at all 1 points." in text


def test_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights whose scores leave NMS something to do; a second run makes nothing again."""
    monkeypatch.setattr(torchvision_shim, "check_installed", lambda folder: None)
    images = tmp_path / "images"
    images.mkdir()
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    picture = np.asarray(cv2.resize(small, (128, 96), interpolation=cv2.INTER_CUBIC), np.uint8)
    cv2.imwrite(str(images / "a.png"), picture)
    arguments = ["--images", str(images), "--backbones", "resnet18", "--imgsz", "64",
                 "--num-classes", "4", "--calibration-num", "1", "--work", str(tmp_path / "work"),
                 "--prepare-only"]  # fmt: skip
    assert grid.main(arguments) == 0
    made = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert [m for m in made if m.isalpha()] == ["weights", "export", "calibrate"]
    with Detector(tmp_path / "work" / "resnet18-64.int8.onnx", threads=1) as detector:
        assert len(detector(picture)) > 5
    assert grid.main(arguments) == 0
    assert "export" not in capsys.readouterr().err


def test_without_torchvision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: Path
) -> None:
    arguments = ["--images", str(images), "--peers", str(tmp_path / "none"), "--work"]
    assert grid.main([*arguments, str(tmp_path / "work")]) == 3
    assert "pip install --no-deps --target" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_what_was_timed_is_drawn_again(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The latest timing of each point, whatever code it was of, if its settings were these."""
    old, new = timing("resnet50", 5.0, 150), timing("resnet50", 6.0, 150)
    for one in (old, new):
        one["models"][0]["file"] = "resnet50-400.onnx"
    (tmp_path / "done.json").write_text(json.dumps({"key": "grid 1", "time a": old, "time b": new}))
    arguments = ["--images", str(images), "--backbones", "resnet50", "--imgsz", "400",
                 "--num-images", "1", "--work", str(tmp_path), "--report-only",
                 "--repeats"]  # fmt: skip
    assert grid.main([*arguments, "4"]) == 0
    text = capsys.readouterr().out
    assert "INT8: 6.00 to 6.00 times as fast" in text and "--report-only" not in text
    assert grid.main([*arguments, "5"]) == 2
    assert "no timing of resnet50 at 400 on 1 images with 5 repeats" in capsys.readouterr().err


def test_which_timings_are_kept(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of a checkout too; none that lacks the peer, and none of other code."""
    made: list[dict[str, Any]] = []
    answers = [timing("resnet50", ratio, 150) for ratio in (4.0, 5.0, 6.0)]
    answers[0]["peers"] = []

    def benchmark(models: list[Path], settings: BenchmarkSettings) -> dict[str, Any]:
        assert settings.peers == ("torchvision",) and settings.num_images == 1
        made.append(answers[len(made)])
        return made[-1]

    def steps() -> grid_steps.Grid:
        return grid_steps.Grid(settings)

    file = images / "a.onnx"
    file.touch()
    monkeypatch.setattr(machine, "_commit", str)
    monkeypatch.setattr(grid_steps, "benchmark", benchmark)
    monkeypatch.setattr(grid_steps.Grid, "files", lambda *_: (file, file, file))
    settings = GridSettings(
        images=str(images), backbones=("resnet50",), imgsz=(400,), num_images=1, repeats=4,
        threads=2, calibration_num=1, num_classes=4, work=tmp_path / "work", peers=tmp_path,
    )  # fmt: skip
    with pytest.raises(CheckFailed, match="torchvision eager, which was not measured"):
        steps().timing("resnet50", 400)
    kept = [steps().timing("resnet50", 400) for _ in range(2)]
    assert kept[0] == kept[1] == answers[1] and len(made) == 2
    monkeypatch.setattr(grid_steps, "code_of_timing", lambda: "other code")
    assert steps().timing("resnet50", 400) == answers[2]


def test_a_grid_without_its_peer_says_why() -> None:
    one = timing("resnet50", 5.0, 150)
    one["peers"] = []
    one["left_out"] = [{"name": PEER, "why": "it does not run here: no memory"}]
    with pytest.raises(CheckFailed, match="it does not run here: no memory"):
        grid.summary([one])
