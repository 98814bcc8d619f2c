"""Steps of long jobs: what is taken over, and what is made again."""

from __future__ import annotations

import ast
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinart.benchmarks.timing import steps
from retinart.benchmarks.timing.steps import NETWORK, Steps, code_of_models, code_of_timing

ROOT = Path(steps.__file__).resolve().parents[2]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the packages that a step's key is made of."""
    for package in ("engine", "export", "calib", "train", "benchmarks"):
        without = shutil.ignore_patterns("results")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=without)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "models", "timing"),
    [
        ("engine/runtime/winograd.py", True, False),
        ("engine/tensorrt/resize.cu", True, False),
        ("calib/placement.py", True, False),
        ("export/graph.py", True, False),
        ("train/model/retinanet.py", True, False),
        ("benchmarks/timing/turns.py", False, True),
        ("train/trainer.py", False, False),
        ("engine/common/html_page.py", False, False),
        ("benchmarks/curve/report.py", False, False),
    ],
)
def test_which_code_counts(sources: Path, changed: str, models: bool, timing: bool) -> None:
    before = code_of_models(sources), code_of_timing(sources)
    with (sources / changed).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert (code_of_models(sources) != before[0], code_of_timing(sources) != before[1]) == (
        models, timing
    )  # fmt: skip


def test_exports_take_nothing_from_training_but_the_network() -> None:
    """What lies outside of `NETWORK` is not hashed, so its changes would go unseen."""
    paths = [path for name in ("export", "calib", NETWORK) for path in (ROOT / name).rglob("*.py")]
    assert {name for path in paths for name in _from_training(path)} == {"model"}


def _from_training(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retinart.train."):
            yield str(node.module).split(".")[2]


def test_steps_of_other_code_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay in the file all the same, for whoever asks for everything that is kept."""
    path, numbers = tmp_path / "done.json", itertools.count(1)

    def step() -> Steps:
        found = Steps(path, key="a job")
        found.once("time", Path("a.onnx"), {"repeats": 1}, lambda: next(numbers))
        return found

    assert (step().taken_over, step().taken_over) == (0, 1)
    monkeypatch.setattr(steps, "code_of_models", lambda: "other code")
    again = step()
    assert again.taken_over == 0 and list(again.kept("time")) == [1, 2]
    assert list(again.kept("export")) == [] and json.loads(path.read_text())["key"] == "a job"
