"""`make fuzz MINUTES=2`: damaged files of every format, and how retinart takes them."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fuzz.children import run
from fuzz.formats import Format, formats
from retinart.engine.common.table import Table

KINDS = ("0", "1", "2", "3", "70", "signal", "hang", "memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz every format in turn; 1 if an input ended badly."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the first input of each format")
    parser.add_argument("--only", default="", help="formats whose names hold this")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="folder for findings")
    args = parser.parse_args(arguments)
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        chosen = [f for f in formats(Path(folder)) if args.only in f.name]
        end, number = time.monotonic() + 60 * args.minutes, 0
        while time.monotonic() < end:
            for one in chosen:
                counts[one.name, _try(one, args.seed + number, Path(folder), args.keep)] += 1
            number += 1
    print(table(counts, [one.name for one in chosen]))
    print(f"seeds {args.seed} to {args.seed + number - 1}")
    return int(any(kind in KINDS[4:] for _, kind in counts))


def _try(one: Format, seed: int, folder: Path, keep: Path) -> str:
    data = one.make(random.Random(f"{one.name} {seed}"))
    path = folder / f"input{one.suffix}"
    path.write_bytes(data)
    outcome = run(lambda: one.use(path))
    if outcome.bad:
        keep.mkdir(parents=True, exist_ok=True)
        name = f"{one.name.replace(' ', '-')}-{seed}"
        (keep / f"{name}{one.suffix}").write_bytes(data)
        (keep / f"{name}.txt").write_text(json.dumps([outcome.kind, outcome.text]) + "\n")
        print(f"{one.name}, seed {seed}: {outcome.kind} {outcome.text[:400]}", file=sys.stderr)
    return outcome.kind


def table(counts: Counter[tuple[str, str]], names: Sequence[str]) -> str:
    """Counts by format and outcome."""
    rows = [
        (name, *(str(counts[name, kind]) for kind in KINDS), str(sum(
            counts[name, kind] for kind in KINDS
        )))
        for name in names
    ]  # fmt: skip
    return Table(head=("format", *KINDS, "all"), rows=rows).markdown()


if __name__ == "__main__":
    sys.exit(main())
