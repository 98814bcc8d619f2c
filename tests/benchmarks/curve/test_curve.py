"""`retinart curve` on the shipped model at two small scales. No figure of time is asserted."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import pytest

from made_up import MACHINE, made_benchmark, model_times
from retinart.benchmarks.curve.report import report, write_results
from retinart.benchmarks.curve.run import Curve, Point, fastest, is_pareto
from retinart.benchmarks.latency import scales
from retinart.benchmarks.latency.run import benchmark
from retinart.benchmarks.latency.scales import Scale
from retinart.benchmarks.peers import find as peers
from retinart.benchmarks.timing.results import Benchmark, LeftOut, Percentiles
from retinart.benchmarks.timing.settings import BenchmarkSettings
from retinart.engine.common.typed_json import read_typed
from retinart.engine.errors import BadInput
from retinart.engine.model.info import computed_in, read_info
from retinart.engine.runtime.openvino_api import has_bf16
from support import SCENES_CHECKPOINT, narrow

Command = Callable[..., CompletedProcess[str]]


@pytest.mark.usefixtures("unmeasured")
def test_curve(
    retinart: Command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All points are there, and a second run makes again only what is gone or new."""
    monkeypatch.setattr(peers, "find_gpus", list)
    monkeypatch.setattr(scales, "benchmark", _timed_once(benchmark))
    out = tmp_path / "curve"
    data = ("--images", scenes / "images", "--annotations", scenes / "instances.json")
    arguments: tuple[str | Path, ...] = (
        "curve", SCENES_CHECKPOINT, *data, "--calibration-images", scenes / "images",
        "--calibration-num", "3", "--num-images", "2", "--repeats", "1", "--threads", "1",
        "--peers", "onnxruntime", "torch-compile-fp16", "--out", out, "--imgsz",
    )  # fmt: skip
    ran = retinart(*arguments, "128", "256")
    assert ran.returncode == 0, ran.stderr
    curve = read_typed(Curve, out / "curve.json")
    points = curve.points
    assert [(p.scale.imgsz, p.model.precision) for p in points] == [
        (128, "fp32"), (128, "int8"), (256, "fp32"), (256, "int8"),
    ]  # fmt: skip
    assert points[2].ap > points[0].ap > 0.02  # it was trained at 256
    assert abs(points[3].ap - points[2].ap) < 0.1
    assert curve.taken_over == 0 and any(is_pareto(p, points) for p in points)
    assert "Fastest within 1 AP of the best: tiny" in ran.stdout
    with (out / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["ap"]) for row in rows] == [round(100 * p.ap, 3) for p in points]
    _check_timings(curve, rows, ran.stdout)
    _check_page((out / "report.html").read_text())
    assert cv2.imread(str(out / "curve.png")) is not None
    assert (out / "curve.svg").read_text().rstrip().endswith("</svg>")

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # pages take seconds
    (out / "models" / "tiny-128.int8.onnx").write_bytes(b"damaged")
    ran = retinart(*arguments, "128")
    assert ran.returncode == 0, ran.stderr
    made = [line for line in ran.stderr.splitlines() if ".onnx" in line and "/" not in line]
    assert made == ["calibrate tiny-128.int8.onnx"]
    again = read_typed(Curve, out / "curve.json")
    assert again.taken_over == 4
    assert [p.model for p in again.points] == [p.model for p in points[:2]]

    with monkeypatch.context() as patch:
        patch.setattr(scales, "code_hash", lambda parts: "other code")
        patch.setattr(scales, "benchmark", lambda *given: curve.timings[0].benchmark)
        ran = retinart(*arguments, "128")
    made = [line for line in ran.stderr.splitlines() if ".onnx" in line and "/" not in line]
    assert made == ["time tiny-128.onnx"]

    if has_bf16():
        ran = retinart(*arguments, "128", "--precisions", "fp32", "--compute", "bf16")
        assert ran.returncode == 0, ran.stderr
        more = read_typed(Curve, out / "curve.json")
        assert [p.model.precision for p in more.points] == ["bf16"]
        assert more.taken_over == 1  # the file
        assert 0 < abs(more.points[0].ap - points[0].ap) < 0.05


def _timed_once(real: Callable[..., Benchmark]) -> Callable[..., Benchmark]:
    """`benchmark`, which gives later files the times of the first ones: each call takes seconds."""
    found: list[Benchmark] = []

    def timed(paths: Sequence[Path], settings: BenchmarkSettings) -> Benchmark:
        if not found:
            found.append(real(paths, settings))
        (compute,) = settings.compute
        models = [
            replace(
                model,
                model=path.name,
                file=path.name,
                precision=computed_in(read_info(path).precision, compute),
                compute=compute,
            )
            for path, model in zip(paths, found[0].models, strict=False)
        ]
        return replace(found[0], models=tuple(models))

    return timed


def _check_timings(curve: Curve, rows: list[dict[str, str]], stdout: str) -> None:
    """Each checkpoint and scale keeps its whole benchmark; the table against peers is of them."""
    assert [scale.name for scale in curve.timings] == ["tiny at 128", "tiny at 256"]
    models = [point.model for point in curve.points]
    assert [float(row["infer_p50_ms"]) for row in rows] == [m.ms["infer"].p50 for m in models]
    for scale in curve.timings:
        assert [p.peer for p in scale.benchmark.peers] == ["ONNX Runtime"]
        assert all(len(m.runs_ms["nms"]) == 2 for m in scale.benchmark.models)
    assert "| checkpoint | precision | imgsz | ms p50 | ONNX Runtime |" in narrow(stdout)
    ratio = models[-1].times_as_fast_as["ONNX Runtime"]
    assert re.search(rf"tiny \| int8 \| 256 \| [0-9.]+ \| {ratio.value:.2f} \(", narrow(stdout))
    assert stdout.count("Left out: torch-compile-fp16, as there is no GPU here.") == 1
    assert (
        f"the reference workload, a fixed piece of arithmetic, varied by {curve.noise:.0%}"
        in stdout
    )


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


def test_the_committed_files_are_what_their_json_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # figures take seconds
    results = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "bccd"
    curve = read_typed(Curve, results / "curve.json")
    for path in write_results(tmp_path, curve)[:2]:
        assert path.read_bytes() == (results / path.name).read_bytes(), path.name
    assert "Fastest within 1 AP of the best" in report(curve)


def test_curves_of_other_versions_are_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    for content, message in (
        ({"points": []}, "has no schema number"),
        ({"schema": 2}, "Upgrade retinart"),
        ({"schema": 0}, "Run the curve again"),
        ({"schema": 1, "images": "72"}, 'the field images has to be a whole number, and is "72"'),
    ):
        path.write_text(json.dumps({"machine": vars(MACHINE), **content}))
        with pytest.raises(BadInput, match=message):
            read_typed(Curve, path)


def test_a_row_that_cannot_run_is_left_out_with_the_reason(tmp_path: Path) -> None:
    """Without a peer there is no table against peers, whose notes would say it."""
    left = LeftOut(name="a.onnx in bf16", why="this CPU has no bf16 instructions")
    found = made_benchmark(model_times(ap=0.5, times_as_fast_as={}), peers=(), left_out=(left,))
    curve = Curve(
        machine=MACHINE,
        images=1,
        annotations_sha256="00",
        timings=(Scale(checkpoint="a", imgsz=64, benchmark=found),),
        taken_over=0,
    )
    write_results(tmp_path, curve)
    for text in (report(curve), (tmp_path / "report.html").read_text()):
        assert "Left out: a.onnx in bf16, as this CPU has no bf16 instructions." in text
        assert "as fast as the peers" not in text and "| ms p50 |\n" not in text


def test_which_points_are_named() -> None:
    def point(ms: float, ap: float) -> Point:
        model = model_times(ms={"total": Percentiles.of([ms])}, ap=ap)
        return Point(Scale(checkpoint="a", imgsz=1, benchmark=made_benchmark(model)), model)

    points = [point(1, 0.2), point(2, 0.3), point(3, 0.3), point(2, 0.1), point(2, 0.3)]
    assert [is_pareto(p, points) for p in points] == [True, True, False, False, True]
    assert fastest([point(1, 0.288), point(3, 0.292), point(5, 0.3)]) == point(3, 0.292)


def test_bad_input(retinart: Command, scenes: Path, tmp_path: Path) -> None:
    checkpoint = SCENES_CHECKPOINT
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
