"""The trainings of the ablations: each cell once, with the same budget, and its AP."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from retinart.benchmarks.ablations.figure4 import AGAIN, Figure4, loss_distribution
from retinart.benchmarks.ablations.paper import BEST, PRIOR, PaperTable, Training
from retinart.benchmarks.timing import machine
from retinart.benchmarks.timing.machine import Machine
from retinart.benchmarks.timing.steps import Steps, digest
from retinart.engine.common.files import sha256
from retinart.engine.common.folders import make_folder
from retinart.engine.errors import CheckFailed
from retinart.engine.evaluation.evaluate import existing
from retinart.train.data.rule import training_rule
from retinart.train.model.checkpoint import load_checkpoint
from retinart.train.settings import TrainSettings
from retinart.train.trainer import train
from retinart.train.validate import Validation


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every cell gets.

    Attributes:
        model: a name that `preset` knows, whose anchors are 16 to 256 pixels on P3 to P7.
        size: (height, width) of the network input.
        epochs, batch_size, optimizer, lr, device: see `TrainSettings`.
    """

    model: str = "tiny"
    size: tuple[int, int] = (192, 256)
    epochs: int = 48
    batch_size: int = 8
    optimizer: str = "adamw"
    lr: float = 1e-3
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class AblationSettings:
    """What to train.

    Attributes:
        data: folder with `train.json`, `test.json` and `images/`.
        out: folder of runs and results.
        budget: of every cell.
        seeds: every cell is trained with each of them.
        threads: see `TrainSettings`.
    """

    data: Path
    out: Path
    budget: Budget = field(default_factory=Budget)
    seeds: tuple[int, ...] = (0,)
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a training gave.

    Attributes:
        figures: COCO's twelve; None where the training diverged.
        diverged: how; None where it did not.
        seconds: of the training.
        checkpoint: below the folder of the results.
    """

    SCHEMA: ClassVar[int] = 1
    AGAIN: ClassVar[str] = AGAIN

    seed: int
    figures: dict[str, float | None] | None
    diverged: str | None
    seconds: float
    checkpoint: str | None = None

    def points(self, figure: str) -> float | None:
        """A figure, 0 to 100; None where the training diverged."""
        return None if self.figures is None else 100 * existing(self.figures, figure)


@dataclass(frozen=True, kw_only=True)
class Ablations:
    """All that the ablations found.

    Attributes:
        cells: of each training by name, one for each seed.
        figure4: of the focal loss's training; None where that was not trained.
        data: hashes of the annotations.
        command: that reproduces it.
    """

    SCHEMA: ClassVar[int] = 1
    AGAIN: ClassVar[str] = AGAIN

    cells: dict[str, tuple[Cell, ...]]
    figure4: Figure4 | None
    budget: Budget
    seeds: tuple[int, ...]
    data: dict[str, str]
    machine: Machine
    command: str = ""

    def points(self, training: Training, figure: str) -> list[float]:
        """A figure of a training by seed, without seeds that diverged."""
        found = (cell.points(figure) for cell in self.cells.get(training.name, ()))
        return [points for points in found if points is not None]


def ablate(
    settings: AblationSettings,
    tables: Sequence[PaperTable],
    *,
    train: Callable[[TrainSettings], Path] = train,
) -> Ablations:
    """Train and evaluate what is not there yet.

    Args:
        settings: what to train.
        tables: whose cells; a training that stands in several is made once.
        train: what trains.
    """
    make_folder(settings.out)
    steps = Steps(settings.out / "done.json", job="ablations")
    data = {name: sha256(settings.data / name) for name in ("train.json", "test.json")}
    trainings = {row.training.name: row.training for table in tables for row in table.rows}
    cells: dict[str, tuple[Cell, ...]] = {}
    for training in trainings.values():
        for seed in settings.seeds:
            inputs = {"training": training.to_json(), "seed": seed, "data": data,
                      "budget": asdict(settings.budget)}  # fmt: skip
            name = f"{training.name}-s{seed}-{digest(inputs)[:12]}"
            make = partial(_train, settings, training, seed, name, train)
            cell = steps.record(Cell, "train", f"{training.name}, seed {seed}", inputs, make)
            cells[training.name] = (*cells.get(training.name, ()), cell)
    return Ablations(
        cells=cells,
        figure4=_figure4(settings, cells.get(BEST.name, ()), steps),
        budget=settings.budget,
        seeds=settings.seeds,
        data=data,
        machine=machine.describe("torch"),
    )


def _train(
    settings: AblationSettings,
    training: Training,
    seed: int,
    name: str,
    train: Callable[[TrainSettings], Path],
) -> Cell:
    """AP and what it took, or why there is none."""
    shutil.rmtree(settings.out / "runs" / name, ignore_errors=True)  # half of a stopped run
    budget: dict[str, Any] = {f.name: getattr(settings.budget, f.name) for f in fields(Budget)}
    if training.overrides:
        budget["overrides"] = training.overrides
    if training.prior != PRIOR:
        budget["prior"] = training.prior
    started = time.perf_counter()
    try:
        checkpoint = train(
            TrainSettings(
                annotations=settings.data / "train.json",
                images=settings.data / "images",
                name=name,
                runs=settings.out / "runs",
                seed=seed,
                threads=settings.threads,
                loss=training.loss,
                **budget,
            )
        )
    except CheckFailed as error:  # it diverged, which is a result
        seconds = time.perf_counter() - started
        return Cell(seed=seed, figures=None, diverged=str(error), seconds=seconds)
    seconds = time.perf_counter() - started
    model, variant, classes = load_checkpoint(checkpoint)
    validation = Validation(
        annotations=settings.data / "test.json",
        images=settings.data / "images",
        rule=training_rule(variant, settings.budget.size),
        classes=tuple(classes),
    )
    return Cell(
        seed=seed,
        figures=validation.run(model, variant).figures,
        diverged=None,
        seconds=seconds,
        checkpoint=str(checkpoint.relative_to(settings.out)),
    )


def _figure4(settings: AblationSettings, cells: Sequence[Cell], steps: Steps) -> Figure4 | None:
    """The distribution of the losses of the focal loss's own training, with its first seed."""
    if not cells or cells[0].checkpoint is None:
        return None
    name, annotations = cells[0].checkpoint, settings.data / "test.json"
    make = partial(
        loss_distribution,
        settings.out / name,
        annotations,
        settings.data / "images",
        size=settings.budget.size,
    )
    return steps.record(Figure4, "figure 4", name, {}, make)
