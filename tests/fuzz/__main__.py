"""Give damaged files of every format to what reads them: `make fuzz MINUTES=2`.

Each input has a seed, and is made of it and of the format's name. The script prints a table of
counts by format and outcome, and ends with 1 if an input ended badly.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fuzz.children import BAD, Outcome, import_what_is_used, run
from fuzz.formats import Format, formats
from retinart.engine.common.cpu import cpu_name, instruction_sets
from retinart.engine.common.table import Table

KINDS = ("0", "1", "2", "3", *BAD)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz every format in turn; 1 if an input ended badly."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--inputs", type=int, help="stop after so many, whatever the time")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--only", default="", help="formats whose names hold this")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="folder for findings")
    parser.add_argument("--out", type=Path, help="write the table here, as Markdown")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        chosen = [f for f in formats(Path(folder)) if args.only in f.name]
        import_what_is_used({f.name: partial(_use, f, f.good[0], Path(folder)) for f in chosen})
        gc.collect()
        gc.freeze()  # a child's collector would touch, and so copy, all that was imported
        found = Counts([f.name for f in chosen], args.seed)
        end = time.monotonic() + 60 * args.minutes
        while found.all < args.inputs if args.inputs else time.monotonic() < end:
            for one in chosen:
                if found.seed % one.every == 0:
                    found.add(one.name, _try(one, found.seed, Path(folder), args.keep))
            found.seed += 1
            if args.out is not None and found.seed % 10 == 0:
                args.out.write_text(found.page(), encoding="utf-8")
    if args.out is not None:
        args.out.write_text(found.page(), encoding="utf-8")
    print(found.page())
    return int(found.bad)


class Counts:
    """What came of the inputs.

    Args:
        names: of the formats.
        seed: of the first round.

    Attributes:
        seed: of the next round.
        all: the number of inputs.
        bad: whether any ended badly.
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self._names, self._first, self.seed = names, seed, seed
        self.all, self.bad = 0, False
        self._counts: Counter[tuple[str, str]] = Counter()
        self._cpu_seconds: dict[str, float] = defaultdict(float)
        self._mib: Counter[str] = Counter()
        self._started = time.monotonic()

    def add(self, name: str, outcome: Outcome) -> None:
        """Count an input of a format."""
        self.all += 1
        self.bad |= outcome.bad
        self._counts[name, outcome.kind] += 1
        self._cpu_seconds[name] = max(self._cpu_seconds[name], outcome.cpu_seconds)
        self._mib[name] = max(self._mib[name], outcome.mib)

    def page(self) -> str:
        """Counts by format and outcome, with seeds and machine."""
        rows = [(name, *self._row(name)) for name in self._names]
        total = [sum(self._counts[name, kind] for name in self._names) for kind in KINDS]
        rows.append(("all", *map(str, total), str(self.all), "", ""))
        head = ("format", *KINDS, "all", "most CPU s", "most MiB")
        minutes = (time.monotonic() - self._started) / 60
        return (
            f"{Table(head=head, rows=rows).markdown()}\n\n"
            f"Seeds {self._first} to {self.seed - 1}, {minutes:.0f} minutes on {cpu_name()} with "
            f"{', '.join(sorted(instruction_sets()))}. A child's memory begins at the parent's.\n"
        )

    def _row(self, name: str) -> list[str]:
        counts = [self._counts[name, kind] for kind in KINDS]
        return [*map(str, [*counts, sum(counts)]), f"{self._cpu_seconds[name]:.1f}",
                str(self._mib[name])]  # fmt: skip


def _file_name(one: Format) -> str:
    return re.sub(r"\W+", "-", one.name)


def _use(one: Format, data: bytes, folder: Path) -> None:
    path = folder / f"{_file_name(one)}{one.suffix}"  # `convert` reads the JSON file of its name
    path.write_bytes(data)
    one.use(path)


def _try(one: Format, seed: int, folder: Path, keep: Path) -> Outcome:
    # The child makes the input: what drawing it keeps in memory would make later forks slow.
    outcome = run(lambda: _use(one, one.make(seed), folder))
    if outcome.bad:
        data = one.make(seed)
        keep.mkdir(parents=True, exist_ok=True)
        name = f"{_file_name(one)}-{seed}"
        (keep / f"{name}{one.suffix}").write_bytes(data)
        (keep / f"{name}.txt").write_text(json.dumps([outcome.kind, outcome.text]) + "\n")
        print(f"{one.name}, seed {seed}: {outcome.kind} {outcome.text[:1500]}", file=sys.stderr)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
