"""`retinart benchmark --compare`: made-up times, so that nothing here depends on the machine."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from retinart.benchmarks.latency.regression import compare_runs, failures, table
from retinart.benchmarks.timing.statistics import ratio_of_apart

Command = Callable[..., CompletedProcess[str]]


def times(seed: int, factor: float = 1.0, n: int = 40) -> list[float]:
    return list(factor * np.random.default_rng(seed).normal(100, 3, n))


def result(seed: int, **factors: float) -> dict[str, Any]:
    stages = ("total", "resize", "infer", "nms")
    model: dict[str, Any] = {
        "model": "a.onnx", "sha256": "00", "precision": "fp32", "input": [96, 128],
        "runs_ms": {s: times(seed + i, factors.get(s, 1.0)) for i, s in enumerate(stages)},
    }  # fmt: skip
    model["runs_ms"]["results"] = [0.0] * 40
    return {
        "images": ["1.jpg"], "repeats": 40, "threads": 2, "noise": 0.01,
        "machine": {"cpu": "x", "versions": {"openvino": "1"}}, "models": [model],
    }  # fmt: skip


def test_only_what_is_surely_slower_fails() -> None:
    found = compare_runs(result(10, nms=1.3, resize=1.113), result(0), 1.1)
    rows = {row["stage"]: row for row in found["ratios"]}
    assert list(rows) == ["total", "resize", "infer", "nms"]  # `results` has no times
    assert [s for s, row in rows.items() if row["slower"]] == ["nms"]
    assert rows["nms"]["ratio"]["value"] == pytest.approx(1.3, abs=0.03)
    assert rows["resize"]["ratio"]["low"] < 1.1 < rows["resize"]["ratio"]["value"]  # not certain
    (line,) = failures(found)
    assert line.startswith("a.onnx: nms takes 1.3") and line.endswith("and 1.1 is allowed")
    text = table(found)
    assert text.count("| SLOWER |") == 1 and "Not as it was" not in text
    assert not failures(compare_runs(result(10, nms=1.3), result(0), 1.4))
    assert failures(compare_runs(result(0), result(0), 0.9))  # all must be faster than before


def test_few_runs_prove_nothing() -> None:
    """The same medians: with three scattered runs the interval spans what is allowed."""
    assert ratio_of_apart([90, 120, 160], [80, 100, 130]).low < 1.1
    assert ratio_of_apart([120.0] * 30, [100.0] * 20).low == pytest.approx(1.2)


def test_differences_are_said() -> None:
    old, new = result(0), result(10)
    old["threads"], old["images"], old["noise"] = 1, ["1.jpg", "2.jpg"], 0.3
    old["machine"] = {"cpu": "y", "versions": {"openvino": "0"}}
    old["models"][0]["sha256"] = "ff"
    old["models"].append({**copy.deepcopy(old["models"][0]), "model": "gone.onnx"})
    new["models"].append({**copy.deepcopy(new["models"][0]), "model": "new.onnx"})
    found = compare_runs(new, old, 1.1)
    assert {row["model"] for row in found["ratios"]} == {"a.onnx"}
    text = "\n".join(found["differences"])
    for part in (
        "threads, 1 then and 2 now", "the images, 2 then and 1 now", "cpu, y then and x now",
        "versions openvino, 0 then and 1 now", "sha256 of a.onnx, ff then and 00 now",
        "new.onnx was not measured then", "gone.onnx is not measured now", "noise, 30% then",
    ):  # fmt: skip
        assert part in text, part
    new["images"] = ["3.jpg", "4.jpg"]
    assert "the images, 2 then and as many others now" in compare_runs(new, old, 1.1)["differences"]


def test_command(retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path) -> None:
    """Times that were a thousandth, or a thousandfold, decide without a look at the clock."""
    arguments = (
        "benchmark", model_path, "--images", small_scenes, "--num-images", "2",
        "--repeats", "3", "--threads", "1",
    )  # fmt: skip
    ran = retinart(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    old = json.loads(ran.stdout)
    for factor, code in ((1e-3, 1), (1e3, 0)):
        scaled = copy.deepcopy(old)
        (model,) = scaled["models"]
        model["runs_ms"] = {s: [factor * v for v in ms] for s, ms in model["runs_ms"].items()}
        path = tmp_path / "old.json"
        path.write_text(json.dumps(scaled))
        ran = retinart(*arguments, "--compare", path, "--max-ratio", "2")
        assert ran.returncode == code, ran.stderr
        assert "| model.onnx | infer |" in ran.stdout
        assert ("model.onnx: infer takes" in ran.stderr) is bool(code)


def test_bad_baseline(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    old = result(0)
    unnamed, bare, few, other = (copy.deepcopy(old) for _ in range(4))
    bare["models"][0].pop("runs_ms")
    few["models"][0]["runs_ms"]["total"] = [1.0] * 5
    other["models"][0]["model"] = "model.onnx at 400"
    for content, message in (
        ("{", "is not JSON"),
        ("[]", "is no benchmark"),
        (json.dumps(bare), "holds no times of single runs"),
        (json.dumps(few), "holds too few runs to compare with"),
        (json.dumps(other), "it has model.onnx at 400; now there is model.onnx"),
        (json.dumps(unnamed), "it has a.onnx; now there is model.onnx"),
    ):
        path = tmp_path / "old.json"
        path.write_text(content)
        ran = retinart("benchmark", model_path, "--images", small_scenes, "--compare", path)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    for more, message in (
        (("--max-ratio", "1.2"), "Give the older one with --compare"),
        (("--compare", tmp_path / "none.json"), "cannot read"),
        (("--compare", path, "--max-ratio", "0"), "max-ratio is 0.0"),
        (("--compare", path, "--num-images", "1"), "5 runs of each model are too few to compare"),
    ):
        ran = retinart("benchmark", model_path, "--images", small_scenes, *more)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
