"""`retinart benchmark --compare`: made-up times, so that nothing here depends on the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from made_up import MACHINE, made_benchmark, model_times
from retinart.benchmarks.latency import run
from retinart.benchmarks.latency.regression import (
    Row,
    compare_runs,
    failures,
    pair_rows,
    ratio_table,
    verdict,
)
from retinart.benchmarks.latency.tables import warnings
from retinart.benchmarks.timing.results import Benchmark, Comparison
from retinart.benchmarks.timing.statistics import ratio_of_medians
from retinart.engine.common.typed_json import read_typed, write_typed
from support import narrow

Command = Callable[..., CompletedProcess[str]]


def result(seed: int, **factors: float) -> Benchmark:
    stages = ("total", "resize", "infer", "nms")
    runs = {
        stage: tuple(factors.get(stage, 1.0) * np.random.default_rng(seed + i).normal(100, 3, 40))
        for i, stage in enumerate(stages)
    }
    model = model_times(runs_ms={**runs, "results": (0.0,) * 40})
    return made_benchmark(model, repeats=40, noise=0.01)


def test_only_what_is_surely_slower_fails() -> None:
    found = compare_runs(result(10, nms=1.3, resize=1.113), result(0), 1.1)
    rows = {row.stage: row for row in found.ratios}
    assert list(rows) == ["total", "resize", "infer", "nms"]  # `results` has no times
    assert [stage for stage, row in rows.items() if row.slower] == ["nms"]
    assert rows["nms"].ratio.value == pytest.approx(1.3, abs=0.03)
    assert rows["resize"].ratio.low < 1.1 < rows["resize"].ratio.value  # not certain
    (line,) = failures(found)
    assert line.startswith("a.onnx: nms takes 1.3") and line.endswith("and 1.1 is allowed")
    table = ratio_table(found)
    assert narrow(table.markdown()).count("| SLOWER |") == 1 and len(table.notes) == 1
    fine = compare_runs(result(10, nms=1.3), result(0), 1.4)
    assert not failures(fine) and not ratio_table(fine).notes  # no legend for no mark
    assert failures(compare_runs(result(0), result(0), 0.9))  # all must be faster than before


def test_a_small_stage_is_not_judged() -> None:
    """A stage of 0.1 ms failed the gate by its noise alone."""
    found = compare_runs(result(10, nms=0.049 * 2), result(0, nms=0.049), 1.1)
    rows = {row.stage: row for row in found.ratios}
    # it holds 9.8% of the total now, so that it is judged though it was small
    assert rows["nms"].judged and rows["nms"].slower
    found = compare_runs(result(10, nms=0.04), result(0, nms=0.02), 1.1)
    rows = {row.stage: row for row in found.ratios}
    assert rows["nms"].ratio.low > 1.1 and not rows["nms"].judged
    assert not failures(found)
    assert verdict(found) == (
        "limit 1.1 times the old median, for the total and each stage with at least 5% of it "
        "(3 of 4 rows): pass"
    )
    table = ratio_table(found)
    assert narrow(table.markdown()).count("| not judged |") == 1
    assert table.notes == ["not judged: the stage holds less than 5% of the total."]


def test_few_runs_prove_nothing() -> None:
    """The same medians: with three scattered runs the interval spans what is allowed."""
    assert ratio_of_medians([90, 120, 160], [80, 100, 130], paired=False).low < 1.1
    assert ratio_of_medians([120.0] * 30, [100.0] * 20, paired=False).low == pytest.approx(1.2)


def test_what_else_has_changed_is_listed() -> None:
    (model,) = result(0).models
    old = replace(
        result(0), threads=1, images=("1.jpg", "2.jpg"), noise=0.3,
        machine=replace(MACHINE, cpu="y", versions={"openvino": "0"}),
        models=(replace(model, sha256="ff"),
                replace(model, model="gone.onnx", file="gone.onnx", sha256="9")),
    )  # fmt: skip
    new = replace(
        result(10), models=(model, replace(model, model="new.onnx", file="new.onnx", sha256="1"))
    )
    found = compare_runs(new, old, 1.1)
    assert {row.model for row in found.ratios} == {"a.onnx"}
    text = "\n".join(found.differences)
    for part in (
        "threads, 1 then and 2 now", "the images, 2 then and 1 now", "cpu, y then and a CPU now",
        "openvino, 0 then and 1 now", "sha256 of a.onnx, ff then and 00 now",
        "new.onnx was not measured then", "gone.onnx is not measured now", "noise, 30% then",
    ):  # fmt: skip
        assert part in text, part
    others = replace(new, images=("3.jpg", "4.jpg"))
    assert "the images, 2 then and as many others now" in compare_runs(others, old, 1).differences


def test_files_are_paired_by_content_then_name_then_as_the_only_ones() -> None:
    """A benchmark paired by the name alone, so it compared other files of one name in silence."""
    how, at_400 = ("fp32", None, 1, 1), ("fp32", 400, 1, 1)
    old = [Row(name, name, digest, how) for name, digest in (("a", "1"), ("b", "2"))]

    def pairs(*new: tuple[str, str], of: list[Row] = old) -> dict[str, str]:
        found = pair_rows([Row(name, name, digest, how) for name, digest in new], of)
        return {name: row.name for name, row in found.items()}

    assert pairs(("a", "1"), ("b", "3")) == {"a": "a", "b": "b"}
    assert pairs(("a", "2"), ("b", "3")) == {"a": "b", "b": "b"}  # "a" was called "b"
    assert pairs(("c", "9")) == {}  # it may be either
    assert pairs(("c", "9"), of=old[:1]) == {"c": "a"}
    assert pair_rows([Row("a at 400", "a", "1", at_400)], old) == {}


def test_a_pair_of_other_names_is_told() -> None:
    (model,) = result(0).models
    for digest, same in (("00", "the same content"), ("ff", "another content")):
        renamed = replace(model, model="b.onnx", file="b.onnx", sha256=digest)
        found = compare_runs(replace(result(10), models=(renamed,)), result(0), 1.1)
        assert {row.model for row in found.ratios} == {"b.onnx"}
        assert f"b.onnx is compared with a.onnx, which has {same}" in found.differences
        assert not any("measured" in line for line in found.differences)


def test_command(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Times that were a thousandth, or a thousandfold, decide without a look at the clock."""
    arguments = (
        "benchmark", model_path, "--images", small_scenes, "--num-images", "2",
        "--repeats", "3", "--threads", "1",
    )  # fmt: skip
    ran = retinart(*arguments, "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    old = read_typed(Benchmark, tmp_path / "benchmark.json")
    monkeypatch.setattr(run, "benchmark", lambda *given: old)  # which takes seconds
    for factor, code in ((1e-3, 1), (1e3, 0)):
        (model,) = old.models
        runs = {s: tuple(factor * v for v in ms) for s, ms in model.runs_ms.items()}
        write_typed(path := tmp_path / "old.json",
                   replace(old, models=(replace(model, runs_ms=runs),)))  # fmt: skip
        ran = retinart(*arguments, "--compare", path, "--max-ratio", "2")
        assert ran.returncode == code, ran.stderr
        assert "| model.onnx | infer |" in narrow(ran.stdout)
        assert ("model.onnx: infer takes" in ran.stderr) is bool(code)
        last = ran.stderr.splitlines()[-1]
        assert last.startswith("limit 2 times the old median, for the total and ")
        assert last.endswith("are slower: fail" if code else "rows): pass")


def test_bad_baseline(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    old, path = result(0), tmp_path / "old.json"
    few = replace(old, models=(model_times(),))
    other = replace(old, models=(replace(old.models[0], model="model.onnx at 400", imgsz=400),))
    two = replace(
        old, models=(old.models[0], replace(old.models[0], model="b.onnx", file="b.onnx"))
    )
    compare = ("benchmark", model_path, "--images", small_scenes, "--compare", path)
    for benchmark, message in (
        (few, "holds too few runs to compare with"),
        (other, "it has model.onnx at 400; now there is model.onnx"),
        (two, "it has a.onnx, b.onnx; now there is model.onnx"),
    ):
        write_typed(path, benchmark)
        ran = retinart(*compare)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    content = json.loads(path.read_text())
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "has no schema number"),
        (json.dumps({**content, "schema": Benchmark.SCHEMA - 1}), "Run the benchmark again"),
        (
            json.dumps({**content, "schema": Benchmark.SCHEMA + 1}),
            f"has schema {Benchmark.SCHEMA + 1}",
        ),
    ):
        path.write_text(text)
        ran = retinart(*compare)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    for more, message in (
        (("--max-ratio", "1.2"), "Give the older run with --compare"),
        (("--compare", tmp_path / "none.json"), "Give the benchmark.json that an earlier run"),
        (("--compare", path, "--max-ratio", "0"), "--max-ratio is 0.0"),
        (("--compare", path, "--num-images", "1"), "5 runs of each model are too few to compare"),
    ):
        ran = retinart("benchmark", model_path, "--images", small_scenes, *more)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr


def test_a_noisy_machine_is_told_of_the_gate_where_there_is_one() -> None:
    """Seen: "A gate (--max-ratio) judges all the same" without --compare."""
    compared = Comparison(max_ratio=1.1, ratios=(), differences=())
    for noise, comparison, told in ((0.4, compared, 1), (0.4, None, 0), (0.02, compared, 0)):
        said = warnings(made_benchmark(noise=noise, comparison=comparison))
        assert sum("The gate (--max-ratio) judges all the same" in text for text in said) == told
