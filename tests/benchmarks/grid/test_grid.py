"""The paper's grid: its steps on a small network, and its sums on made-up times."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from made_up import PEER, made_benchmark, model_times
from retinart.benchmarks.grid import __main__ as grid
from retinart.benchmarks.grid import steps as grid_steps
from retinart.benchmarks.grid.points import Grid, the_peer
from retinart.benchmarks.grid.report import report, write_results
from retinart.benchmarks.grid.steps import GridSettings, GridSteps
from retinart.benchmarks.latency import scales
from retinart.benchmarks.latency.scales import Scale
from retinart.benchmarks.peers import torchvision_shim
from retinart.benchmarks.timing import machine
from retinart.benchmarks.timing.peaks import Peaks
from retinart.benchmarks.timing.results import Benchmark, LeftOut
from retinart.benchmarks.timing.settings import BenchmarkSettings
from retinart.benchmarks.timing.steps import Step, Steps
from retinart.engine.common.typed_json import read_typed, to_json
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, CheckFailed


def timing(int8: float, peak: float) -> Benchmark:
    """torchvision takes 100 ms; FP32 takes 50 ms, with 40 in infer."""
    models = (model_times(ratio=2.0), model_times(ratio=int8, precision="int8"))
    return made_benchmark(*models, peak_gops=Peaks(fp32=peak, int8=4 * peak))


def scale(name: str, benchmark: Benchmark) -> Scale:
    return Scale(checkpoint=name, imgsz=400, benchmark=benchmark)


def test_the_sums(tmp_path: Path) -> None:
    timings = scale("resnet50", timing(5.0, 150)), scale("resnet101", timing(4.4, 200))
    result = Grid(timings=timings, command="python -m retinart.benchmarks.grid")
    first, _, _, last = result.points
    assert result.peaks == Peaks(fp32=200, int8=800)  # the best of both
    assert first.ms_at_peak == pytest.approx(20) and first.share_of_peak == pytest.approx(0.5)
    assert first.ratio_at_peak == pytest.approx(100 / 30)  # 10 ms outside of infer stay
    assert [p.reached for p in result.points] == [True, True, True, False]
    assert last.scale.checkpoint == "resnet101" and last.model.precision == "int8"
    text = report(result)
    assert "INT8: 4.40 to 5.00 times as fast; below 4.5 at 1 of 2 points: resnet101 400." in text
    assert "FP32: 2.00 to 2.00 times as fast; at least 1.35 at all 2 points." in text
    assert text.count("BELOW") == 1 and "WARNING: the reference workload varied" in text
    written = write_results(tmp_path / "grid", result)
    assert [path.suffix for path in written] == [".md", ".json", ".csv", ".html"]
    assert read_typed(Grid, written[1]) == result
    assert "4.40 (4.30 to 4.50) BELOW" in text
    with written[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["ratio"]) for row in rows] == [2.0, 5.0, 2.0, 4.4]
    assert (rows[0]["infer_p50_ms"], rows[0]["peer_infer_p50_ms"]) == ("40.0", "90.0")
    page = written[3].read_text()
    assert "<summary>resnet101 at 400: fp32 50.0 ms, int8 22.7 ms, torchvision eager 100.0" in page
    assert page.count("<details>") == 2 and page.count("<svg") == 1 + 2 * 2


def test_bf16_has_its_own_limit_and_the_files_aim() -> None:
    models = (
        model_times(ratio=2.0), model_times(ratio=2.0, precision="bf16"),
        model_times(ratio=5.0, precision="int8"), model_times(ratio=4.6, precision="int8+bf16"),
    )  # fmt: skip
    peaks = Peaks(fp32=150, int8=600, bf16=300)
    result = Grid(timings=(scale("resnet50", made_benchmark(*models, peak_gops=peaks)),))
    fp32, bf16, int8, mixed = result.points
    assert bf16.ms_at_peak == pytest.approx(fp32.ms_at_peak / 2)
    assert mixed.ms_at_peak == int8.ms_at_peak and mixed.reached
    text = report(result)
    assert "150 GFLOP/s in FP32, 300 in BF16, 600 GOP/s in INT8" in text
    assert "INT8+BF16: 4.60 to 4.60 times as fast; at least 4.5 at all 1 points." in text


def test_the_committed_page_is_what_its_json_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # twenty figures take seconds
    results = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
    written = write_results(tmp_path / "paper_grid", read_typed(Grid, results / "paper_grid.json"))
    for path in written[1:3]:
        assert path.read_bytes() == (results / path.name).read_bytes(), path.name
    assert written[0].read_text() in (results / "paper_grid.md").read_text()


@pytest.mark.usefixtures("unmeasured")
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
    arguments = ["--images", str(images), "--torchvision", str(tmp_path / "none"), "--work"]
    assert grid.main([*arguments, str(tmp_path / "work")]) == 3
    assert "pip install --no-deps --target" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_what_was_timed_is_drawn_again(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes the latest timing of each point with these settings, also one of older code."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # only the table is read
    steps = Steps(tmp_path / "done.json", job="grid")

    def keep(name: str, benchmark: Benchmark, schema: int = Benchmark.SCHEMA) -> None:
        result = json.loads(json.dumps({**to_json(benchmark), "schema": schema}))
        steps.put(f"time resnet50-400.onnx {name}", Step(state="done", seconds=1, result=result))

    keep("a", timing(5.0, 150))
    keep("b", timing(6.0, 150))
    arguments = ["--images", str(images), "--backbones", "resnet50", "--imgsz", "400",
                 "--num-images", "1", "--work", str(tmp_path), "--report-only",
                 "--repeats"]  # fmt: skip
    assert grid.main([*arguments, "4"]) == 0
    text = capsys.readouterr().out
    assert "INT8: 6.00 to 6.00 times as fast" in text and "--report-only" not in text
    assert grid.main([*arguments, "5"]) == 2
    assert "no timing of resnet50 at 400 on 1 images with 5 repeats" in capsys.readouterr().err
    keep("c", timing(7.0, 150), schema=Benchmark.SCHEMA - 1)
    assert grid.main([*arguments, "4"]) == 2
    said = capsys.readouterr().err
    assert f"has schema {Benchmark.SCHEMA - 1}" in said and "Run the benchmark again" in said


def test_which_timings_are_kept(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, model_path: Path
) -> None:
    """Outside of a checkout too; none that lacks the peer, and none of other code."""
    answers = [timing(ratio, 150) for ratio in (4.0, 5.0, 6.0)]
    answers[0] = replace(answers[0], peers=())
    made = list[Benchmark]()

    def benchmark(models: list[Path], settings: BenchmarkSettings) -> Benchmark:
        assert settings.peers == ("torchvision",) and settings.num_images == 1
        made.append(answers[len(made)])
        return made[-1]

    monkeypatch.setattr(machine, "_commit", str)
    monkeypatch.setattr(scales, "benchmark", benchmark)
    monkeypatch.setattr(scales, "find_peers", lambda *_: [LeftOut(name="a", why="b")])
    monkeypatch.setattr(grid_steps.GridSteps, "files", lambda *_: (model_path,) * 3)
    settings = GridSettings(
        images=str(images), backbones=("resnet50",), imgsz=(400,), num_images=1, repeats=4,
        work=tmp_path / "work", torchvision=tmp_path,
    )  # fmt: skip

    def found() -> Benchmark:
        return GridSteps(settings).timing("resnet50", 400).benchmark

    with pytest.raises(CheckFailed, match="torchvision eager, which was not measured"):
        found()
    assert found() == found() == answers[1] and len(made) == 2
    monkeypatch.setattr(scales, "code_hash", lambda parts: "other code")
    assert found() == answers[2]


def test_a_grid_without_its_peer_says_why() -> None:
    left = LeftOut(name=PEER, why="it does not run here: no memory")
    with pytest.raises(CheckFailed, match="it does not run here: no memory"):
        the_peer(replace(timing(5.0, 150), peers=(), left_out=(left,)))


def test_grids_of_other_versions_are_refused_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = Grid(timings=(scale("a", made_benchmark(model_times(ratio=2.0))),))
    path = write_results(tmp_path / "grid", result)[1]
    content = json.loads(path.read_text())
    for change, message in (({"schema": 0}, "has schema 0"), ({"timings": 1}, "field timings has")):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(BadInput, match=message):
            read_typed(Grid, path)
