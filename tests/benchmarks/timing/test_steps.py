"""Steps of long jobs: what is taken over, and what is made again."""

from __future__ import annotations

import ast
import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from retinart.benchmarks.timing import source_hash
from retinart.benchmarks.timing.source_hash import GPU, MODELS, TIMING, code_hash
from retinart.benchmarks.timing.steps import Steps
from retinart.engine.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Number:
    SCHEMA: ClassVar[int] = 2
    AGAIN: ClassVar[str] = "Time it again"

    value: int


ROOT = Path(source_hash.__file__).resolve().parents[2]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the packages that a step's inputs are made of."""
    for package in ("engine", "export", "calib", "train", "benchmarks", "verify"):
        without = shutil.ignore_patterns("results")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=without)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("engine/runtime/winograd.py", (True, False, True)),
        ("engine/tensorrt/resize.cu", (True, False, True)),
        ("calib/placement.py", (True, False, True)),
        ("export/graph.py", (True, False, True)),
        ("train/model/retinanet.py", (True, False, True)),
        ("benchmarks/timing/contestants.py", (False, True, False)),
        ("benchmarks/timing/worker.py", (False, True, True)),
        ("benchmarks/latency/run.py", (False, True, False)),
        ("verify/checks.py", (False, False, True)),
        ("train/trainer.py", (False, False, True)),
        ("engine/common/html_page.py", (False, False, False)),
        ("benchmarks/curve/report.py", (False, False, False)),
    ],
)
def test_which_code_counts(sources: Path, changed: str, expected: tuple[bool, ...]) -> None:
    before = [code_hash(parts, sources) for parts in (MODELS, TIMING, GPU)]
    with (sources / changed).open("a", encoding="utf-8") as file:
        file.write("\n")
    after = [code_hash(parts, sources) for parts in (MODELS, TIMING, GPU)]
    assert tuple(a != b for a, b in zip(after, before, strict=True)) == expected


def test_every_part_is_there() -> None:
    """A part that was moved away would silently count no more."""
    assert all((ROOT / part).exists() for part in (*MODELS, *TIMING, *GPU, *source_hash._DRAW))


def test_exports_take_nothing_from_training_but_the_network() -> None:
    """Changes elsewhere in `train` would go unseen."""
    folders = [part for part in MODELS if part != "engine"]
    paths = [path for name in folders for path in (ROOT / name).rglob("*.py")]
    assert {name for path in paths for name in _from_training(path)} == {"model"}


def _from_training(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retinart.train."):
            yield str(node.module).split(".")[2]


def test_a_step_is_made_once_for_its_inputs(tmp_path: Path) -> None:
    """Results of other inputs stay in the file."""
    path, numbers = tmp_path / "done.json", itertools.count(1)

    def step(**inputs: int) -> Steps:
        found = Steps(path, job="a job")
        made = found.record(Number, "time", "a.onnx", inputs, lambda: Number(value=next(numbers)))
        assert made in found.records(Number, "time", "a.onnx")
        return found

    assert (step(a=1).taken_over, step(a=1).taken_over) == (0, 1)
    again = step(a=2)
    assert again.taken_over == 0
    assert [n.value for n in again.records(Number, "time", "a.onnx")] == [2, 1]
    assert list(again.records(Number, "export", "a.onnx")) == []


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    steps = Steps(None, job="a job")
    old = {"schema": 1, "value": 1}
    steps.once("time", "a", {}, lambda: old)
    with pytest.raises(BadInput, match=r"the step time a has schema 1.* Time it again"):
        steps.record(Number, "time", "a", {}, lambda: Number(value=1))
    with pytest.raises(BadInput, match="has schema 1"):
        next(steps.records(Number, "time", "a"))


def test_a_file_is_made_again_when_it_has_changed(tmp_path: Path) -> None:
    path, made = tmp_path / "a.onnx", list[int]()

    def make() -> None:
        made.append(1)
        path.write_text("content")

    for content in (None, None, "damaged", None):
        if content:
            path.write_text(content)
        assert Steps(tmp_path / "done.json", job="a job").file("export", path, {}, make) == path
    assert len(made) == 2 and path.read_text() == "content"


def test_files_of_another_job_or_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "done.json"
    Steps(path, job="curve").once("time", "a", {}, dict)
    with pytest.raises(BadInput, match="is of the job curve, and this is grid"):
        Steps(path, job="grid")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(BadInput, match="Upgrade retinart"):
        Steps(path, job="curve")


@pytest.mark.parametrize("damage", ["schema", "key", "result", "half", "deep"])
def test_a_file_that_cannot_be_used_is_set_aside(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "done.json"
    Steps(path, job="curve").once("time", "a", {}, lambda: {"ms": 1})
    text = path.read_text()
    changed = {
        "schema": json.dumps({**json.loads(text), "schema": 0}),
        "key": json.dumps({"key": "curve 2", "time 1": {}}),
        "result": text.replace('"ms": 1', '"ms": 2'),
        "half": text[: len(text) // 2],
        "deep": "[" * 5000 + "]" * 5000,
    }[damage]
    path.write_text(changed)
    steps = Steps(path, job="curve")
    assert steps.all == {} and not path.exists()
    assert (tmp_path / "done.json.broken").read_text() == changed
    assert "done.json cannot be used" in capsys.readouterr().err
    steps.once("time", "a", {}, dict)
    assert len(Steps(path, job="curve").all) == 1
