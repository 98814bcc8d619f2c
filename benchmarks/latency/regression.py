"""Compare a benchmark with an older one: which stage of which model surely became slower?

The two ran at different times, so their runs do not form pairs. The interval of the medians' ratio
comes from resampling each side by itself. A stage fails only if its whole interval is above the
limit. The ratio of a stage of a fraction of a millisecond is mostly noise, so only the total and
the stages that hold a share of it are judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from retinart.benchmarks.timing import statistics
from retinart.benchmarks.timing.results import (
    STAGES,
    Benchmark,
    Comparison,
    ModelTimes,
    StageRatio,
)
from retinart.benchmarks.timing.settings import BenchmarkSettings
from retinart.engine.common.files import sha256
from retinart.engine.common.table import Table
from retinart.engine.common.typed_json import read_typed
from retinart.engine.errors import BadInput

# Of the total, that a stage holds in one of the two runs at least, or it is not judged.
SMALLEST_SHARE = 0.05


class Row(NamedTuple):
    """A row's name, its file, and how it is run: compute, scale, batch and streams."""

    name: str
    file: str
    sha256: str
    how: tuple[str, int | None, int, int]


def rows_to_come(models: Sequence[Path], settings: BenchmarkSettings) -> list[Row]:
    """The rows that a benchmark will have; a file that is missing has no hash."""
    hashes = {path: sha256(path) if path.is_file() else "" for path in models}
    return [
        Row(s.name(path, compute), path.name, hashes[path], (compute, s.imgsz, s.batch, s.streams))
        for s, path, compute in settings.rows(models)
    ]


def pair_rows(new: Sequence[Row], old: Sequence[Row]) -> dict[str, Row]:
    """The older row of each new one that has one, by the new row's name.

    Both are run in the same way. The files have the same content, or else the same name, or else
    each side has one file only.
    """
    same_content = {(row.sha256, row.how): row for row in reversed(old)}
    same_name = {(row.file, row.how): row for row in reversed(old)}
    alone = len({row.file for row in new}) == len({row.file for row in old}) == 1
    only = {row.how: row for row in old} if alone else {}
    pairs = {}
    for row in new:
        found = same_content.get((row.sha256, row.how)) or same_name.get((row.file, row.how))
        if (found := found or only.get(row.how)) is not None:
            pairs[row.name] = found
    return pairs


def read_baseline(path: Path, rows: Sequence[Row]) -> Benchmark:
    """An older benchmark to compare with.

    Args:
        path: `benchmark.json` of `retinart benchmark --out`.
        rows: that will be compared with it.

    Raises:
        BadInput: the file cannot be read, holds too few runs or none of the rows; or two of the
            rows have one name.
    """
    if not path.is_file():
        raise BadInput(
            f"there is no file {path} to compare with",
            fix="Give the benchmark.json that an earlier run with `out` wrote",
        )
    old = read_typed(Benchmark, path)
    if any(len(m.runs_ms.get("total", ())) < statistics.FEWEST for m in old.models):
        raise BadInput(
            f"{path} holds too few runs to compare with",
            why=f"the median of less than {statistics.FEWEST} has no 95% interval",
            fix="Run the old benchmark again with more `repeats`",
        )
    if len({row.name for row in rows}) < len(rows):
        raise BadInput(
            "two models have one name, by which they are compared", fix="Rename one of the files"
        )
    if not pair_rows(rows, _rows_of(old)):
        had, wanted = ([row.name for row in some] for some in (_rows_of(old), rows))
        raise BadInput(
            f"{path} holds nothing to compare with",
            why=f"it has {', '.join(had)}; now there is {', '.join(wanted)}",
            fix="Give the same files, or files of the same names, with the same settings",
        )
    return old


def compare_runs(new: Benchmark, old: Benchmark, max_ratio: float) -> Comparison:
    """New times over old ones by model and stage.

    Args:
        new, old: what to compare; see `pair_rows`.
        max_ratio: times the old median that a stage may take.
    """
    before = _older_models(new, old)
    ratios = []
    for model in new.models:
        for stage in STAGES if model.model in before else ():
            both = model.runs_ms, before[model.model].runs_ms
            now, then = (runs.get(stage, ()) for runs in both)
            if not any(now) or not any(then):  # one of the two has no such stage
                continue
            ratio = statistics.ratio_of_medians(now, then, paired=False)
            judged = any(
                _median(runs, stage) >= SMALLEST_SHARE * _median(runs, "total") for runs in both
            )
            ratios.append(
                StageRatio(
                    model=model.model,
                    stage=stage,
                    old_ms=_median(both[1], stage),
                    new_ms=_median(both[0], stage),
                    ratio=ratio,
                    slower=judged and ratio.low > max_ratio,
                    judged=judged,
                )
            )
    return Comparison(
        max_ratio=max_ratio, ratios=tuple(ratios), differences=tuple(_differences(new, old))
    )


def failures(comparison: Comparison) -> list[str]:
    """A line for each stage that became slower than is allowed."""
    return [
        f"{row.model}: {row.stage} takes {row.ratio} times as long as before, and "
        f"{comparison.max_ratio:g} is allowed"
        for row in comparison.ratios
        if row.slower
    ]


def verdict(comparison: Comparison) -> str:
    """The limit, what is judged by it, and whether it holds."""
    judged = sum(row.judged for row in comparison.ratios)
    slower = sum(row.slower for row in comparison.ratios)
    found = f"{slower} of these {judged} are slower: fail" if slower else "pass"
    return (
        f"limit {comparison.max_ratio:g} times the old median, for the total and each stage with "
        f"at least {SMALLEST_SHARE:.0%} of it ({judged} of {len(comparison.ratios)} rows): {found}"
    )


def ratio_table(comparison: Comparison) -> Table:
    """The ratios; what else has changed is in the notes."""
    notes = []
    if any(row.slower for row in comparison.ratios):
        notes.append(f"SLOWER: the whole interval is above {comparison.max_ratio:g}.")
    if any(not row.judged for row in comparison.ratios):
        notes.append(f"not judged: the stage holds less than {SMALLEST_SHARE:.0%} of the total.")
    notes += [f"Not as it was: {line}" for line in comparison.differences]
    return Table(
        title="Against an older benchmark",
        head=["model", "stage", "old ms p50", "new ms p50", "new / old (95%)", ""],
        rows=[
            (
                row.model,
                row.stage,
                f"{row.old_ms:.2f}",
                f"{row.new_ms:.2f}",
                row.ratio,
                "SLOWER" if row.slower else "" if row.judged else "not judged",
            )
            for row in comparison.ratios
        ],
        notes=notes,
    )


def _median(runs: Mapping[str, Sequence[float]], stage: str) -> float:
    return statistics.median(runs[stage]).value


def _differences(new: Benchmark, old: Benchmark) -> Iterator[str]:
    """What else could make a difference, a line each."""
    for name in ("repeats", "threads"):
        then, now = getattr(old, name), getattr(new, name)
        if then != now:
            yield f"{name}, {then} then and {now} now"
    if old.images != new.images:
        counts = [len(result.images) for result in (old, new)]
        same = "as many others" if counts[0] == counts[1] else counts[1]
        yield f"the images, {counts[0]} then and {same} now"
    was, is_now = (dict(result.machine.rows()) for result in (old, new))
    for key in sorted(was.keys() | is_now.keys()):
        if was.get(key) != is_now.get(key):
            yield f"{key}, {was.get(key)} then and {is_now.get(key)} now"
    before = _older_models(new, old)
    for model in new.models:
        if model.model not in before:
            yield f"{model.model} was not measured then"
            continue
        yield from _changes(model, before[model.model])
    paired = {m.model for m in before.values()}
    for name in sorted({m.model for m in old.models} - paired):
        yield f"{name} is not measured now"
    if max(old.noise, new.noise) > statistics.NOISY:
        yield (
            f"the machine's noise, {old.noise:.0%} then and {new.noise:.0%} now: intervals are "
            "narrower than the truth"
        )


def _changes(now: ModelTimes, then: ModelTimes) -> Iterator[str]:
    """How the files of a pair differ."""
    if now.file != then.file:
        same = "the same content" if now.sha256 == then.sha256 else "another content"
        yield f"{now.model} is compared with {then.model}, which has {same}"
    for key in ("sha256", "precision", "input"):
        was, is_now = getattr(then, key), getattr(now, key)
        if was != is_now:
            yield f"{key} of {now.model}, {str(was)[:12]} then and {str(is_now)[:12]} now"


def _rows_of(result: Benchmark) -> list[Row]:
    return [
        Row(m.model, m.file, m.sha256, (m.compute, m.imgsz, m.batch, m.streams))
        for m in result.models
    ]


def _older_models(new: Benchmark, old: Benchmark) -> dict[str, ModelTimes]:
    """The older model of each new one that has one, by the new row's name."""
    pairs, before = pair_rows(_rows_of(new), _rows_of(old)), {m.model: m for m in old.models}
    return {name: before[row.name] for name, row in pairs.items()}
