"""The ablations: each cell once, also after a stop, and tables that say what came out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinart.benchmarks.ablations import run as ablations
from retinart.benchmarks.ablations.__main__ import main
from retinart.benchmarks.ablations.figure4 import describe, loss_distribution
from retinart.benchmarks.ablations.paper import (
    BEST,
    TABLES,
    PaperTable,
    Row,
    Training,
    anchors,
    focal,
    ohem,
)
from retinart.benchmarks.ablations.report import markdown, verdict, write_results
from retinart.benchmarks.ablations.run import Ablations, AblationSettings, Budget, Cell, ablate
from retinart.engine.common.typed_json import read_typed
from retinart.engine.errors import CheckFailed
from retinart.engine.model.variant import Variant
from retinart.train.data.drawing import SHAPES
from retinart.train.data.scenes import make_scenes
from retinart.train.data.settings import SceneSettings
from retinart.train.model.checkpoint import save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from support import files_below, narrow

SIZE = (64, 96)


def row(cell: str, training: Training, paper: float | None = None) -> Row:
    return Row((cell,), training, paper)


ALPHA, OHEM = (
    PaperTable(name, name, ("x",), rows)
    for name, rows in (
        ("alpha", (row("1", focal(0, 0.5), 30.2), row("2", BEST))),
        ("ohem", (row("3", ohem("ohem", 8, 0.5)), row("4", BEST, 36.0))),
    )
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    scenes = SceneSettings(size=SIZE, max_objects=3, radius=(10, 20))
    make_scenes(folder / "made", num=3, seed=1, settings=scenes)
    shutil.move(folder / "made" / "images", folder / "images")
    for name in ("train", "test"):
        shutil.copy(folder / "made" / "instances.json", folder / f"{name}.json")
    return folder


class Trainer:
    """In the place of `train`: writes fresh weights, and knows what it was asked for."""

    def __init__(self, *, fails: str = "", stops: str = "") -> None:
        self.seen: list[Any] = []
        self._fails, self._stops = fails, stops

    def __call__(self, settings: Any) -> Path:
        folder: Path = settings.runs / settings.name
        assert not folder.exists()
        folder.mkdir(parents=True)
        (folder / "half").touch()
        if self._stops and self._stops in settings.name:
            raise KeyboardInterrupt
        if self._fails and self._fails in settings.name:
            raise CheckFailed("the loss is NaN")
        self.seen.append(settings)
        variant = preset("tiny", 6)
        save_checkpoint(
            folder / "last.pt",
            model=build_retinanet(variant),
            variant=variant,
            classes=SHAPES,
            training={},
        )
        return folder / "last.pt"


def _settings(data: Path, out: Path, **more: Any) -> AblationSettings:
    seeds = more.pop("seeds", (0,))
    budget = Budget(size=SIZE, epochs=1, **more)
    return AblationSettings(data=data, out=out, budget=budget, seeds=seeds)


def test_a_training_in_two_tables_is_made_once_and_a_second_call_makes_none(
    data: Path, tmp_path: Path
) -> None:
    trainer = Trainer()
    settings = _settings(data, tmp_path, seeds=(0, 1))
    first = ablate(settings, (ALPHA, OHEM), train=trainer)
    names = [(s.name.rsplit("-", 1)[0], s.seed) for s in trainer.seen]
    assert names == [
        ("focal-g0-a0.5-s0", 0), ("focal-g0-a0.5-s1", 1),
        ("focal-g2-a0.25-s0", 0), ("focal-g2-a0.25-s1", 1),
        ("ohem-8-0.5-s0", 0), ("ohem-8-0.5-s1", 1),
    ]  # fmt: skip
    assert {s.epochs for s in trainer.seen} == {1}
    assert trainer.seen[-1].loss.cls_loss == "ohem"
    again = ablate(settings, (ALPHA, OHEM), train=trainer)
    assert len(trainer.seen) == 6
    assert again == first
    figures = first.cells["ohem-8-0.5"][0].figures
    assert figures is not None and set(figures) >= {"AP", "AP50", "AP75"}
    ablate(_settings(data, tmp_path, lr=0.5), (OHEM,), train=trainer)
    assert len(trainer.seen) == 8  # another budget is another cell
    ablate(settings, (ALPHA, OHEM), train=trainer)
    assert len(trainer.seen) == 8  # and the old ones are still there


def test_a_stopped_run_goes_on_with_the_cell_that_it_was_in(data: Path, tmp_path: Path) -> None:
    settings = _settings(data, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        ablate(settings, (ALPHA, OHEM), train=Trainer(stops="ohem"))
    trainer = Trainer()
    result = ablate(settings, (ALPHA, OHEM), train=trainer)
    assert [s.loss.cls_loss for s in trainer.seen] == ["ohem"]
    assert len(result.cells) == 3


def test_a_run_that_diverges_is_a_result(data: Path, tmp_path: Path) -> None:
    settings = _settings(data, tmp_path)
    result = ablate(settings, (OHEM,), train=Trainer(fails="ohem"))
    assert result.cells["ohem-8-0.5"][0].diverged == "the loss is NaN."
    assert "| 3 | diverged | diverged | diverged | - |" in narrow(markdown(result, (OHEM,)))
    trainer = Trainer()
    ablate(settings, (OHEM,), train=trainer)
    assert not trainer.seen


def test_what_a_cell_changes_reaches_the_trainer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The priors and the anchors; the stand-in takes all fields."""

    class Settings:
        def __init__(self, **fields: Any) -> None:
            self.__dict__.update(fields)

    monkeypatch.setattr(ablations, "TrainSettings", Settings)
    trainer = Trainer()
    rows = (
        row("a", anchors(2, 1)),
        row("b", focal(2, 0.25, prior=0.5, suffix="-x")),
        row("c", BEST),
    )
    ablate(
        _settings(data, tmp_path), (PaperTable("t", "t", ("x",), rows),),
        train=trainer,
    )  # fmt: skip
    first, second, third = (vars(s) for s in trainer.seen)
    assert first["overrides"]["anchor_ratios"] == (1.0,)
    assert first["overrides"]["anchor_sizes"][0] == (16, pytest.approx(16 * 2**0.5))
    assert "prior" not in first
    assert second["prior"] == 0.5
    assert not {"prior", "overrides"} & set(third)


def test_the_tables_are_the_papers() -> None:
    sizes = {table.name: len(table.rows) for table in TABLES}
    assert sizes == {"prior": 4, "alpha": 7, "gamma": 7, "anchors": 7, "ohem": 10}
    runs = {row.training.name: row.training for table in TABLES for row in table.rows}
    assert len(runs) == 31
    assert all(row.training == runs[row.training.name] for table in TABLES for row in table.rows)
    for run in runs.values():
        variant = Variant(source="x", backbone="tiny", num_classes=1, **run.overrides)
        assert json.dumps(run.to_json())
        name = run.name
        if name.startswith("anchors"):
            scales, ratios = map(int, name.removeprefix("anchors-").split("x"))
            assert variant.num_anchors == scales * ratios


def test_the_results_are_written_with_who_is_ahead(data: Path, tmp_path: Path) -> None:
    found = ablate(_settings(data, tmp_path / "runs"), (ALPHA, OHEM), train=Trainer())
    cells: dict[str, tuple[Cell, ...]] = {
        name: (replace(found.cells[name][0], figures={"AP": ap, "AP50": ap, "AP75": ap}),)
        for name, ap in (("focal-g0-a0.5", 0.25), ("focal-g2-a0.25", 0.3), ("ohem-8-0.5", 0.4))
    }
    result = replace(found, cells=cells, command="python -m it")
    paths = write_results(tmp_path / "out", result, (ALPHA, OHEM))
    assert sorted(p.name for p in paths) == files_below(tmp_path / "out")
    assert {p.suffix for p in paths} == {".json", ".md", ".png"}
    text = (tmp_path / "out" / "ablations.md").read_text()
    assert "| 1 | 25.0 | " in narrow(text)
    assert "| 30.2 |" in narrow(text)
    assert "    python -m it\n" in text
    assert verdict(result, (ALPHA, OHEM)) == [
        "The focal loss (AP 30.0) beats the best of this table: alpha, 1 (AP 25.0).",
        "The focal loss (AP 30.0) does not beat the best of this table: ohem, 3 (AP 40.0).",
    ]
    assert read_typed(Ablations, tmp_path / "out" / "ablations.json") == result


def test_the_committed_tables_are_what_their_json_gives() -> None:
    results = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
    found = read_typed(Ablations, results / "ablations" / "ablations.json")
    page = (results / "ablations.md").read_text().splitlines()
    lines = [line for line in markdown(found, TABLES).splitlines() if line.startswith("|")]
    assert len(lines) > 50 and set(lines) <= set(page)


def test_the_distribution_of_known_losses() -> None:
    """Of 1000 losses one has half of the sum."""
    losses = np.array([1.0] * 999 + [999.0])
    found = describe(losses)
    assert found.hardest["0.001"] == pytest.approx(0.5)
    assert found.hardest["0.1"] == pytest.approx(0.5 + 99 / 1998, abs=1e-4)
    assert found.curve[0] == 0
    assert found.curve[100] == pytest.approx(500 / 1998, abs=1e-5)
    assert found.curve[-1] == 1


def test_the_distribution_of_a_model(data: Path, tmp_path: Path) -> None:
    class Settings:
        runs, name = tmp_path, "x"

    found = loss_distribution(Trainer()(Settings), data / "test.json", data / "images", size=SIZE)
    assert found.positive.anchors > 3
    assert found.negative.anchors > found.positive.anchors
    negative = found.negative.gammas
    assert list(negative) == ["0", "0.5", "1", "2"]
    held = [losses.hardest["0.1"] for losses in negative.values()]
    assert held == sorted(held)
    for curve in (losses.curve for losses in negative.values()):
        assert len(curve) == len(found.x)
        assert (np.diff(curve) >= 0).all()
        assert (np.diff(curve, 2) > -1e-5).all()  # ascending losses: a convex curve


def test_a_folder_without_data_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "train.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
