"""`retinart benchmark`: every figure is there and plausible. Nothing here depends on time."""

from __future__ import annotations

import csv
import html
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from retinart.benchmarks import latency_report, limits, turns

Command = Callable[..., CompletedProcess[str]]


def test_benchmark(
    retinart: Command, model_path: Path, int8_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o" / "b"
    ran = retinart(
        "benchmark", model_path, int8_path, "--images", small_scenes, "--num-images", "2",
        "--repeats", "2", "--threads", "1", "--out", out,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("2 images x 2 repeats, 1 threads")
    assert [line.split("|")[1].strip() for line in lines[4:6]] == ["model.onnx", "model.int8.onnx"]
    result = json.loads((out / "benchmark.json").read_text())
    fp32, int8 = result["models"]
    assert (fp32["precision"], int8["precision"]) == ("fp32", "int8")
    assert fp32["input"] == int8["input"] == [96, 128] and fp32["gmac"] == int8["gmac"] > 0
    for m in (fp32, int8):
        stages = m["ms"]
        parts = sum(stages[name]["p50"] for name in ("resize", "infer", "nms", "results"))
        assert 0.5 * parts < stages["total"]["p50"] and stages["infer"]["p50"] > 0
        assert stages["total"]["p50"] <= stages["total"]["p90"] <= stages["total"]["p99"]
        assert len(m["runs_ms"]["total"]) == 4 and np.isclose(
            np.median(m["runs_ms"]["total"]), stages["total"]["p50"], atol=1e-3
        )
        assert m["load_ms"] > 0 and m["first_ms"] > 0 and m["peak_mib"] > 50
        assert m["images_per_second"] > 0 and m["share_of_peak"] > 0
    assert fp32["times_as_fast_as_first"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    _check_files(out, result)
    assert len(result["reference_ms"]) == 3 * 3 and result["noise"] >= 0


def _check_files(out: Path, result: dict[str, Any]) -> None:
    """The table and the page hold what the JSON does; the page needs no network."""
    with (out / "benchmark.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["model.onnx", "model.int8.onnx"]
    for row, m in zip(rows, result["models"], strict=True):
        assert float(row["infer_p90_ms"]) == m["ms"]["infer"]["p90"]
    page = (out / "report.html").read_text()
    assert result["command"].startswith("retinart benchmark /") and (
        html.escape(result["command"]) in page
    )
    assert result["command"].endswith("--num-images 2 --repeats 2 --threads 1")
    assert page.count("<svg") == 2 and "model.int8.onnx, 4 runs" in page
    assert re.fullmatch(r"[0-9a-f]{40}( with changes)?", result["machine"]["commit"])
    for text in (result["machine"]["commit"], result["machine"]["versions"]["openvino"]):
        assert text in page
    links = re.findall(r'(?:src|href)="([^"#]*)', page)
    assert not [link for link in links if link] and "url(http" not in page


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is said, with what to install, and the numbers are written all the same."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert 'pip install "retinart[report]"' in latency_report.why_no_report()
    times = dict.fromkeys(("p50", "p90", "p99"), 1.0)
    model = {"model": "a.onnx", "input": [96, 128], "ms": dict.fromkeys(turns.STAGES, times)}
    written = latency_report.write_results(tmp_path, {"models": [model], "peers": []})
    assert [path.name for path in written] == ["benchmark.json", "benchmark.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.csv", "benchmark.json"]


def test_macs(model_path: Path) -> None:
    """The first convolution of `tiny` is 7x7 with stride 2; the count grows with the area."""
    small, large = (limits.count_work(model_path, (96, w)) for w in (128, 256))
    stem = 48 * 64 * 3 * 7 * 7  # a channel
    assert small.macs > 16 * stem
    assert large.macs == pytest.approx(2 * small.macs, rel=0.05)
    assert small.values < large.values < 2 * small.values  # the weights are the same


def test_bad_input(retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((model_path, model_path, "--images", small_scenes), "a model is named twice"),
        ((model_path, "--images", tmp_path / "none"), "none"),
        ((model_path, "--images", small_scenes, "--repeats", "0"), "repeats is 0"),
        ((tmp_path / "no.onnx", "--images", small_scenes), "there is no model at"),
    ):
        ran = retinart("benchmark", *arguments)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
