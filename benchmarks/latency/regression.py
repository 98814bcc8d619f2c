"""A benchmark against an older one: which stage of which model became slower, and is it certain?

The two were made at different times, so nothing pairs their runs. The medians' ratio gets an
interval by resampling each side for itself; a stage fails only when the whole interval lies above
what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retinart.benchmarks.timing import statistics
from retinart.benchmarks.timing.turns import STAGES
from retinart.engine.errors import BadInput

_KEYS = ("images", "repeats", "threads", "machine", "noise", "models")


def read_baseline(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The JSON of an older benchmark.

    Args:
        path: `benchmark.json` of `retinart benchmark --out`.
        names: of the rows that are to be compared with it.

    Raises:
        BadInput: it is no such file, was made before single runs were kept or of too few, or holds
            none of the rows; or two of these have one name.
    """
    again = "Give the benchmark.json that `retinart benchmark --out DIR` wrote"
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or str(error)
        raise BadInput(f"cannot read {path}", why=why, fix="Check --compare") from error
    except ValueError as error:
        raise BadInput(f"{path} is not JSON", why=str(error), fix=again) from error
    if not isinstance(old, dict) or any(key not in old for key in _KEYS):
        raise BadInput(f"{path} is no benchmark", fix=again)
    if not all(_has_runs(model) for model in old["models"]):
        raise BadInput(
            f"{path} holds no times of single runs",
            why="without them no interval can be given",
            fix="Run the old benchmark again",
        )
    if any(len(model["runs_ms"].get("total", ())) < statistics.FEWEST for model in old["models"]):
        raise BadInput(
            f"{path} holds too few runs to compare with",
            why=f"the median of less than {statistics.FEWEST} has no 95% interval",
            fix="Run the old benchmark again with more --repeats",
        )
    if len(set(names)) < len(names):
        raise BadInput(
            "two models have one name, by which they are compared", fix="Rename one of the files"
        )
    had = [model["model"] for model in old["models"]]
    if not set(names) & set(had):
        raise BadInput(
            f"{path} holds nothing to compare with",
            why=f"it has {', '.join(had)}; now there is {', '.join(names)}",
            fix="Give files of the same names, with the same settings",
        )
    return old


def compare_runs(new: dict[str, Any], old: dict[str, Any], max_ratio: float) -> dict[str, Any]:
    """New times over old ones by model and stage; plain JSON types.

    Args:
        new, old: results of `benchmark`.
        max_ratio: how many times the old median a stage may take.

    Returns:
        `ratios`, a row for each model and stage with `slower` where its whole interval lies above
        `max_ratio`; `differences`, what else is not as it was, a line each.
    """
    before = {model["model"]: model for model in old["models"]}
    rows = []
    for model in new["models"]:
        if model["model"] not in before:
            continue
        was = before[model["model"]]["runs_ms"]
        for stage in STAGES:
            mine, theirs = (runs.get(stage, []) for runs in (model["runs_ms"], was))
            if not any(mine) or not any(theirs):  # a stage that one of them has not got
                continue
            ratio = statistics.ratio_of_apart(mine, theirs)
            rows.append(
                {
                    "model": model["model"],
                    "stage": stage,
                    "old_ms": float(statistics.median(theirs).value),
                    "new_ms": float(statistics.median(mine).value),
                    "ratio": asdict(ratio),
                    "slower": ratio.low > max_ratio,
                }
            )
    return {"max_ratio": max_ratio, "ratios": rows, "differences": list(_differences(new, old))}


def failures(comparison: dict[str, Any]) -> list[str]:
    """A line for each stage that became slower than is allowed."""
    return [
        f"{row['model']}: {row['stage']} takes {_ratio(row)} times as long as before, and "
        f"{comparison['max_ratio']:g} is allowed"
        for row in comparison["ratios"]
        if row["slower"]
    ]


def table(comparison: dict[str, Any]) -> str:
    """The result of `compare_runs` as Markdown."""
    lines = [
        "| model | stage | old ms p50 | new ms p50 | new / old (95%) | |",
        "|---|---|---|---|---|---|",
    ]
    for row in comparison["ratios"]:
        lines.append(
            f"| {row['model']} | {row['stage']} | {row['old_ms']:.2f} | {row['new_ms']:.2f} "
            f"| {_ratio(row)} | {'SLOWER' if row['slower'] else ''} |"
        )
    lines += ["", f"SLOWER: the whole interval is above {comparison['max_ratio']:g}."]
    lines += [f"Not as it was: {line}" for line in comparison["differences"]]
    return "\n".join(lines)


def _ratio(row: dict[str, Any]) -> statistics.Estimate:
    return statistics.Estimate(**row["ratio"])


def _has_runs(model: Any) -> bool:
    return isinstance(model, dict) and "model" in model and bool(model.get("runs_ms"))


def _differences(new: dict[str, Any], old: dict[str, Any]) -> Iterator[str]:
    """What else could make a difference, a line each."""
    for name in ("repeats", "threads"):
        if old[name] != new[name]:
            yield f"{name}, {old[name]} then and {new[name]} now"
    if old["images"] != new["images"]:
        counts = [len(result["images"]) for result in (old, new)]
        same = "as many others" if counts[0] == counts[1] else counts[1]
        yield f"the images, {counts[0]} then and {same} now"
    yield from _changed(old["machine"], new["machine"], "")
    before, after = ({m["model"]: m for m in result["models"]} for result in (old, new))
    for name, model in after.items():
        if name not in before:
            yield f"{name} was not measured then"
            continue
        for key in ("sha256", "precision", "input"):
            if before[name].get(key) != model[key]:
                was, now = (str(m.get(key))[:12] for m in (before[name], model))
                yield f"{key} of {name}, {was} then and {now} now"
    for name in before.keys() - after.keys():
        yield f"{name} is not measured now"
    if max(old["noise"], new["noise"]) > statistics.NOISY:
        yield (
            f"the machine's noise, {old['noise']:.0%} then and {new['noise']:.0%} now: with so "
            "much of it, intervals are narrower than the truth"
        )


def _changed(old: dict[str, Any], new: dict[str, Any], prefix: str) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _changed(was, now, f"{prefix}{key} ")
        elif was != now:
            yield f"{prefix}{key}, {was} then and {now} now"
