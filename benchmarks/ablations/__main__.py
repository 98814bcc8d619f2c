"""The focal loss's ablations at a small scale: each loss, prior and set of anchors, same budget.

    python -m retinart.benchmarks.ablations --data bccd --out runs/ablations

trains a small model from scratch for each cell of the paper's tables (`tables.py`), takes
its AP on held-out images, and writes tables beside the paper's, plots, and figure 4. A cell that is
done is kept in the folder under the hash of all that it depends on: what was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinart.benchmarks.ablations.loss_distribution import loss_distribution
from retinart.benchmarks.ablations.report import write_results
from retinart.benchmarks.ablations.tables import BEST, PRIOR, TABLES, Run, Table
from retinart.benchmarks.timing import machine
from retinart.calib.resume import Saved
from retinart.engine.common.files import make_folder, sha256
from retinart.engine.common.progress import Progress
from retinart.engine.errors import BadInput, CheckFailed, RetinartError
from retinart.engine.evaluation.coco import CocoDataset, coco_result, load_coco
from retinart.engine.evaluation.evaluate import coco_figures
from retinart.engine.media.images import read_image
from retinart.engine.model.info import Thresholds
from retinart.train.data.batches import training_rule
from retinart.train.model.checkpoint import load_checkpoint
from retinart.train.model.predict import predict
from retinart.train.settings import TrainSettings
from retinart.train.trainer import train


@dataclass(frozen=True, kw_only=True)
class AblationSettings:
    """The budget that every cell has.

    Attributes:
        data: folder with `train.json`, `test.json` and `images/`.
        out: folder of runs and results.
        model: a name that `preset` knows, whose anchors are 16 to 256 pixels on P3 to P7.
        size: (height, width) of the network input.
        epochs, batch_size, optimizer, lr, device, threads: see `TrainSettings`.
        seeds: every cell is trained with each of them.
    """

    data: Path
    out: Path
    model: str = "tiny"
    size: tuple[int, int] = (192, 256)
    epochs: int = 48
    batch_size: int = 8
    optimizer: str = "adamw"
    lr: float = 1e-3
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"
    threads: int | None = None

    def budget(self) -> dict[str, Any]:
        """What a cell's result depends on besides the cell, in JSON's types."""
        return {
            "model": self.model,
            "size": list(self.size),
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "lr": self.lr,
            "device": self.device,
        }


def ablate(
    settings: AblationSettings,
    tables: Sequence[Table],
    *,
    train: Callable[[TrainSettings], Path] = train,
) -> dict[str, Any]:
    """Train and evaluate what is not there yet.

    Args:
        settings: the budget.
        tables: whose cells; a training that stands in several is made once.
        train: what trains.

    Returns:
        `runs`, by name the results of each seed, `figure4` (None without the focal loss's run), the
        budget and the machine; plain JSON types.
    """
    make_folder(settings.out)
    test = load_coco(settings.data / "test.json", settings.data / "images")
    saved = Saved(settings.out / "done.json", key="ablations 1")
    data = {name: sha256(settings.data / name) for name in ("train.json", "test.json")}
    runs = {row.run.name: row.run for table in tables for row in table.rows}
    progress, results = Progress(), dict[str, list[dict[str, Any]]]()
    todo = [(run, seed) for run in runs.values() for seed in settings.seeds]
    for number, (run, seed) in enumerate(todo, 1):
        content = {"run": run.to_json(), "seed": seed, "data": data, **settings.budget()}
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        if (result := saved.get(key)) is None:
            progress.line(f"cell {number} of {len(todo)}: {run.name}, seed {seed}")
            result = _run_cell(settings, run, seed, key[:12], test, train)
            saved.set(key, result)
        results.setdefault(run.name, []).append({"seed": seed, **result})
    return {
        "runs": results,
        "figure4": _figure4(settings, results.get(BEST.name), saved),
        "budget": {**settings.budget(), "seeds": list(settings.seeds), "data": data},
        "machine": machine.describe("torch"),
    }


def _run_cell(
    settings: AblationSettings,
    run: Run,
    seed: int,
    key: str,
    test: CocoDataset,
    train: Callable[[TrainSettings], Path],
) -> dict[str, Any]:
    """AP and what it took, or why there is none."""
    name = f"{run.name}-s{seed}-{key}"
    shutil.rmtree(settings.out / "runs" / name, ignore_errors=True)  # half of a stopped run
    more: dict[str, Any] = {}
    if run.overrides:
        more["overrides"] = run.overrides
    if run.prior != PRIOR:
        more["prior"] = run.prior
    started = time.perf_counter()
    try:
        checkpoint = train(
            TrainSettings(
                annotations=settings.data / "train.json",
                images=settings.data / "images",
                name=name,
                runs=settings.out / "runs",
                model=settings.model,
                size=settings.size,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                optimizer=settings.optimizer,  # type: ignore[arg-type]
                lr=settings.lr,
                seed=seed,
                device=settings.device,
                threads=settings.threads,
                loss=run.loss,
                **more,
            )
        )
    except CheckFailed as error:  # it diverged, which is a result
        return {"figures": None, "diverged": str(error), "seconds": time.perf_counter() - started}
    seconds = time.perf_counter() - started
    return {
        "figures": accuracy(checkpoint, test, settings.size),
        "diverged": None,
        "seconds": seconds,
        "checkpoint": str(checkpoint.relative_to(settings.out)),
    }


def accuracy(
    checkpoint: Path, dataset: CocoDataset, size: tuple[int, int]
) -> dict[str, float | None]:
    """COCO's twelve figures of a checkpoint in PyTorch, its input letterboxed as in training."""
    model, variant, _ = load_checkpoint(checkpoint)
    rule, results = training_rule(variant, size), list[dict[str, Any]]()
    for image in dataset.images:
        pixels = read_image(image.path)
        frames, (resized,) = rule.apply([pixels])
        (found,) = predict(model, variant, frames, Thresholds(), sizes=[resized.size])
        for box, score, label in resized.detections_to_source(found):
            category = dataset.category_ids[label]
            results.append(coco_result(image.image_id, category, [float(v) for v in box], score))
    return coco_figures(dataset, results, [image.image_id for image in dataset.images])[0]


def _figure4(
    settings: AblationSettings, results: list[dict[str, Any]] | None, saved: Saved
) -> dict[str, Any] | None:
    """The distribution of the losses of the focal loss's own run, with its first seed."""
    if not results or results[0]["figures"] is None:
        return None
    checkpoint = settings.out / results[0]["checkpoint"]
    key = f"figure 4 {results[0]['checkpoint']}"
    if (found := saved.get(key)) is None and checkpoint.is_file():
        images = settings.data / "images"
        found = loss_distribution(
            checkpoint, settings.data / "test.json", images, size=settings.size
        )
        saved.set(key, found)
    return found if isinstance(found, dict) else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print Markdown, write results. Returns the exit code."""
    args = _parser().parse_args(argv)
    settings = AblationSettings(
        data=args.data,
        out=args.out,
        model=args.model,
        size=(args.height, args.width),
        epochs=args.epochs,
        batch_size=args.batch,
        optimizer=args.optimizer,
        lr=args.lr,
        seeds=tuple(args.seeds),
        device=args.device,
        threads=args.threads,
    )
    try:
        for name in ("train.json", "test.json", "images"):
            if not (settings.data / name).exists():
                raise BadInput(f"there is no {settings.data / name}", fix="Give a folder with it")
        tables = [table for table in TABLES if table.name in (args.only or table.name)]
        result = ablate(settings, tables)
        given = sys.argv[1:] if argv is None else argv
        result["command"] = shlex.join(
            ["python", "-m", "retinart.benchmarks.ablations", *map(str, given)]
        )
        paths = write_results(settings.out, result, tables)
    except RetinartError as error:
        print(f"ablations: {error}", file=sys.stderr)
        return error.exit_code
    print((settings.out / "ablations.md").read_text(encoding="utf-8"))
    print(*paths, sep="\n", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retinart.benchmarks.ablations",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    default = AblationSettings(data=Path(), out=Path())
    parser.add_argument("--data", type=Path, required=True, metavar="DIR",
                        help="with train.json, test.json and images/")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=[table.name for table in TABLES])
    parser.add_argument("--model", default=default.model)
    parser.add_argument("--height", type=int, default=default.size[0])
    parser.add_argument("--width", type=int, default=default.size[1])
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--batch", type=int, default=default.batch_size)
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default=default.optimizer)
    parser.add_argument("--lr", type=float, default=default.lr)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(default.seeds))
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--threads", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
