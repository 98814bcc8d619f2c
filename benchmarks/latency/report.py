"""What a benchmark leaves in a folder: JSON, CSV and, with matplotlib, an HTML page."""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks.latency.tables import intro, row_name, tables, warnings
from retinart.benchmarks.timing import statistics
from retinart.benchmarks.timing.turns import PERCENTILES, STAGES
from retinart.engine.common.files import atomic_path
from retinart.engine.common.html_page import (
    COLORS,
    details,
    load_matplotlib,
    paragraphs,
    svg,
    write_page,
)
from retinart.engine.common.table import Table
from retinart.engine.errors import MissingDependency

FIGURES = (
    "images_per_second", "detections", "load_ms", "first_ms", "peak_mib", "gmac", "share_of_peak",
    "share_of_bandwidth", "ap", "ap50",
)  # fmt: skip


def why_no_report() -> str:
    """Why no page can be written here, and what to install; "" where it can."""
    try:
        load_matplotlib()
    except MissingDependency as error:
        return str(error)
    return ""


def write_results(folder: Path, result: dict[str, Any]) -> list[Path]:
    """Write `benchmark.json`, `benchmark.csv` and, where it can be drawn, `report.html`.

    Args:
        folder: it is made where it is missing.
        result: of `benchmark`, with `command` that reproduces it.

    Returns:
        The files written.
    """
    paths = [folder / "benchmark.json", folder / "benchmark.csv"]
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_csv(paths[1], [_row(row) for row in [*result["models"], *result["peers"]]])
    if not why_no_report():
        paths.append(folder / "report.html")
        write_page(paths[-1], "Benchmark", [*_parts(result), environment(result)])
    return paths


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of the same keys, under a line that names them."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def environment(result: dict[str, Any]) -> str:
    """HTML: the command that reproduces a result, and the machine that it ran on."""
    rows = []
    for name, value in result["machine"].items():
        if isinstance(value, dict):
            rows += [[key, str(version)] for key, version in value.items()]
        elif isinstance(value, list):
            rows.append(
                [name, "; ".join(map(_words, value)) if name == "gpus" else " ".join(value)]
            )
        else:
            rows.append([name, str(value)])
    return (
        "<h2>To reproduce it</h2>"
        f"<p><code>{html.escape(result['command'])}</code></p>"
        f"<h2>Environment</h2>{Table(rows=rows).html()}"
    )


def _words(fields: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in fields.items())


def found(result: dict[str, Any], heading: str = "h2") -> list[str]:
    """HTML: what a benchmark found, as warnings, tables, bars of the stages and histograms.

    Args:
        result: of `benchmark`.
        heading: the tag of its headings.
    """
    rows = [*result["models"], *result["peers"]]
    parts = paragraphs(warnings(result))
    for each in tables(result):
        parts.append(f"<{heading}>{html.escape(each.title)}</{heading}>")
        if each.title == "Stages":
            parts.append(_bars(rows))
        parts += [each.html(), *paragraphs(each.notes)]
    return [
        *parts,
        f"<{heading}>Latency</{heading}><p>Milliseconds of every run, each model on its own scale. "
        "The line is the median.</p>",
        _histograms(rows),
    ]


def folded(timings: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """HTML: what each of several benchmarks found, folded away under its name and its times."""
    parts = []
    for name, timing in zip(names, timings, strict=True):
        times = [(m["precision"], m) for m in timing["models"]]
        times += [(p["peer"], p) for p in timing["peers"]]
        said = ", ".join(f"{what} {row['ms']['total']['p50']:.1f} ms" for what, row in times)
        parts.append(details(f"{name}: {said}", found(timing, "h3")))
    return parts


def _parts(result: dict[str, Any]) -> list[str]:
    parts = [*paragraphs(intro(result)), *found(result)]
    if "comparison" in result:
        parts += _comparison(result["comparison"])
    return parts


def _comparison(comparison: dict[str, Any]) -> list[str]:
    rows = [
        [
            row["model"],
            row["stage"],
            f"{row['old_ms']:.2f}",
            f"{row['new_ms']:.2f}",
            str(statistics.Estimate(**row["ratio"])),
            "SLOWER" if row["slower"] else "",
        ]
        for row in comparison["ratios"]
    ]
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in comparison["differences"])
    head = ["model", "stage", "old p50 ms", "new p50 ms", "new / old (95%)", ""]
    return [
        "<h2>Against an older benchmark</h2>",
        Table(head=head, rows=rows).html(),
        f"<p>SLOWER: the whole interval is above {comparison['max_ratio']:g}.</p>",
        f"<p>Not as it was:</p><ul>{lines}</ul>" if lines else "",
    ]


def _bars(models: Sequence[dict[str, Any]]) -> str:
    """A bar a model, its stages' medians one after the other."""
    figure = load_matplotlib().Figure(figsize=(10, 1.4 + 0.45 * len(models)))
    axes = figure.add_subplot()
    left = np.zeros(len(models))
    for stage, color in zip(STAGES[1:], COLORS, strict=False):
        widths = np.array([m["ms"][stage]["p50"] for m in models])
        axes.barh(range(len(models)), widths, left=left, color=color, label=stage, height=0.6)
        left += widths
    axes.set_yticks(range(len(models)), [row_name(m) for m in models])
    axes.set_xlim(0, 1.05 * left.max())
    axes.invert_yaxis()
    axes.set_xlabel("ms, medians of the stages")
    axes.legend(ncols=len(STAGES) - 1, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def _histograms(models: Sequence[dict[str, Any]]) -> str:
    figure = load_matplotlib().Figure(figsize=(10, 1.9 * len(models)))
    for number, model in enumerate(models, 1):
        axes = figure.add_subplot(len(models), 1, number)
        values = np.asarray(model["runs_ms"]["total"])
        axes.hist(values, bins=min(40, max(5, len(values) // 2)), color=COLORS[0])
        axes.axvline(float(np.median(values)), color=COLORS[1], linewidth=1.5)
        axes.set_title(f"{row_name(model)}, {len(values)} runs", fontsize=10)
        axes.set_ylabel("runs")
        axes.yaxis.get_major_locator().set_params(integer=True)
    figure.axes[-1].set_xlabel("ms, from a decoded frame to final boxes")
    return svg(figure)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the table; a peer has no precision, limit or ratio."""
    times = {f"{stage}_p{p}_ms": row["ms"][stage][f"p{p}"] for stage in STAGES for p in PERCENTILES}
    first = row.get("times_as_fast_as_first", {})
    return {
        "model": row_name(row),
        "precision": row.get("precision"),
        "height": row["input"][0],
        "width": row["input"][1],
        **times,
        **{name: row.get(name) for name in FIGURES},
        **{f"times_first_{k}": first.get(k) for k in ("value", "low", "high")},
    }
