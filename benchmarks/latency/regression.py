"""Compare a benchmark with an older one: which stage of which model surely became slower?

The two ran at different times, so their runs do not form pairs. The interval of the medians' ratio
comes from resampling each side by itself. A stage fails only if its whole interval is above the
limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from retinart.benchmarks.timing import statistics
from retinart.benchmarks.timing.results import (
    STAGES,
    Benchmark,
    Comparison,
    StageRatio,
)
from retinart.engine.common.table import Table
from retinart.engine.common.typed_json import read_typed
from retinart.engine.errors import BadInput


def read_baseline(path: Path, names: Sequence[str]) -> Benchmark:
    """An older benchmark to compare with.

    Args:
        path: `benchmark.json` of `retinart benchmark --out`.
        names: of the rows that will be compared with it.

    Raises:
        BadInput: the file cannot be read, holds too few runs or none of the rows; or two of the
            rows have one name.
    """
    old = read_typed(Benchmark, path)
    if any(len(m.runs_ms.get("total", ())) < statistics.FEWEST for m in old.models):
        raise BadInput(
            f"{path} holds too few runs to compare with",
            why=f"the median of less than {statistics.FEWEST} has no 95% interval",
            fix="Run the old benchmark again with more `repeats`",
        )
    if len(set(names)) < len(names):
        raise BadInput(
            "two models have one name, by which they are compared", fix="Rename one of the files"
        )
    had = [m.model for m in old.models]
    if not set(names) & set(had):
        raise BadInput(
            f"{path} holds nothing to compare with",
            why=f"it has {', '.join(had)}; now there is {', '.join(names)}",
            fix="Give files of the same names, with the same settings",
        )
    return old


def compare_runs(new: Benchmark, old: Benchmark, max_ratio: float) -> Comparison:
    """New times over old ones by model and stage.

    Args:
        new, old: what to compare; models are matched by the names of their rows.
        max_ratio: times the old median that a stage may take.
    """
    before = {m.model: m.runs_ms for m in old.models}
    ratios = []
    for model in new.models:
        for stage in STAGES if model.model in before else ():
            now, then = (runs.get(stage, ()) for runs in (model.runs_ms, before[model.model]))
            if not any(now) or not any(then):  # one of the two has no such stage
                continue
            ratio = statistics.ratio_of_medians(now, then, paired=False)
            ratios.append(
                StageRatio(
                    model=model.model,
                    stage=stage,
                    old_ms=statistics.median(then).value,
                    new_ms=statistics.median(now).value,
                    ratio=ratio,
                    slower=ratio.low > max_ratio,
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


def ratio_table(comparison: Comparison) -> Table:
    """The ratios; what else has changed is in the notes."""
    notes = [f"SLOWER: the whole interval is above {comparison.max_ratio:g}."]
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
                "SLOWER" if row.slower else "",
            )
            for row in comparison.ratios
        ],
        notes=notes,
    )


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
    before, after = ({m.model: m for m in result.models} for result in (old, new))
    for name, model in after.items():
        if name not in before:
            yield f"{name} was not measured then"
            continue
        for key in ("sha256", "precision", "input"):
            then, now = getattr(before[name], key), getattr(model, key)
            if then != now:
                yield f"{key} of {name}, {str(then)[:12]} then and {str(now)[:12]} now"
    for name in sorted(before.keys() - after.keys()):
        yield f"{name} is not measured now"
    if max(old.noise, new.noise) > statistics.NOISY:
        yield (
            f"the machine's noise, {old.noise:.0%} then and {new.noise:.0%} now: intervals are "
            "narrower than the truth"
        )
