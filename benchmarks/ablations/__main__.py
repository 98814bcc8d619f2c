"""The focal loss's ablations at a small scale: each loss, prior and set of anchors, same budget.

    python -m retinart.benchmarks.ablations --data bccd --out runs/ablations

trains a small model from scratch for each cell of the paper's tables (`paper.py`), measures its AP
on held-out images, and writes tables beside the paper's, plots, and figure 4. A finished cell is
kept in the folder under a hash of everything that it depends on, so a stopped run goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from retinart.benchmarks.ablations.paper import TABLES
from retinart.benchmarks.ablations.report import markdown, write_results
from retinart.benchmarks.ablations.run import AblationSettings, Budget, ablate
from retinart.benchmarks.program import new_parser, run
from retinart.engine.errors import BadInput


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print Markdown, write results. Returns the exit code."""
    return run(_work, _parser(), argv)


def _work(args: argparse.Namespace) -> None:
    budget = Budget(
        model=args.model,
        size=(args.height, args.width),
        epochs=args.epochs,
        batch_size=args.batch,
        optimizer=args.optimizer,
        lr=args.lr,
        device=args.device,
    )
    settings = AblationSettings(
        data=args.data, out=args.out, budget=budget, seeds=tuple(args.seeds), threads=args.threads
    )
    for name in ("train.json", "test.json", "images"):
        if not (settings.data / name).exists():
            raise BadInput(f"there is no {settings.data / name}", fix="Give a folder with it")
    tables = [table for table in TABLES if table.name in (args.only or table.name)]
    result = replace(ablate(settings, tables), command=args.command)
    paths = write_results(settings.out, result, tables)
    print(markdown(result, tables))
    print(*paths, sep="\n", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("benchmarks.ablations", __doc__)
    default, add = Budget(), parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR",
        help="with train.json, test.json and images/")  # fmt: skip
    add("--out", type=Path, default=Path("runs/ablations"), metavar="DIR", help="for the results")
    add("--only", nargs="+", choices=[table.name for table in TABLES], help="some of the tables")
    add("--model", default=default.model, help="what is trained")
    add("--height", type=int, default=default.size[0], help="of the input")
    add("--width", type=int, default=default.size[1], help="of the input")
    add("--epochs", type=int, default=default.epochs, help="of each training")
    add("--batch", type=int, default=default.batch_size, help="images in a batch")
    add("--optimizer", choices=("sgd", "adamw"), default=default.optimizer, help="of each training")
    add("--lr", type=float, default=default.lr, help="learning rate")
    add("--seeds", type=int, nargs="+", default=[0], help="each cell is trained with each of them")
    add("--device", default=default.device, help="cpu or cuda")
    add("--threads", type=int, help="of PyTorch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
