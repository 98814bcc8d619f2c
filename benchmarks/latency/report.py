"""What a benchmark leaves in a folder: JSON, CSV and, with matplotlib, an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks.latency.regression import ratio_table
from retinart.benchmarks.latency.tables import intro, tables, warnings
from retinart.benchmarks.timing.machine import Machine
from retinart.benchmarks.timing.results import (
    STAGES,
    Benchmark,
    ModelTimes,
    PeerTimes,
    Percentiles,
)
from retinart.engine.common.html_page import (
    COLORS,
    details,
    load_matplotlib,
    paragraphs,
    svg,
    table_parts,
    why_no_page,
    write_page,
)
from retinart.engine.common.markup import Html, element, joined
from retinart.engine.common.table import Table
from retinart.engine.common.typed_json import write_typed

Row = ModelTimes | PeerTimes
RESULT = "benchmark.json"
_FIGURES = (
    "images_per_second", "detections", "load_ms", "first_ms", "peak_mib", "gmac", "share_of_peak",
    "share_of_bandwidth",
)  # fmt: skip


def write_results(folder: Path, result: Benchmark) -> list[Path]:
    """Write `benchmark.json`, `benchmark.csv` and, where it can be drawn, `report.html`.

    Args:
        folder: is made where it is missing.
        result: with the command that reproduces it.

    Returns:
        The files written.
    """
    paths = [folder / RESULT, folder / "benchmark.csv"]
    write_typed(paths[0], result)
    Table.of([_csv_row(row) for row in result.rows]).write_csv(paths[1])
    if not why_no_page():
        paths.append(folder / "report.html")
        parts = [*paragraphs(intro(result)), *found(result)]
        if result.comparison is not None:
            parts += table_parts(ratio_table(result.comparison))
        write_page(paths[-1], "Benchmark", [*parts, environment(result.command, result.machine)])
    return paths


def environment(command: str, machine: Machine) -> Html:
    """The command that reproduces a result, and the machine that it ran on."""
    return joined(
        [
            element("h2", "To reproduce it"),
            element("p", element("code", command)),
            element("h2", "Environment"),
            Table(rows=list(machine.rows())).html(),
        ]
    )


def found(result: Benchmark, heading: str = "h2") -> list[Html]:
    """What a benchmark found, as warnings, tables, bars of the stages and histograms.

    Args:
        result: to show.
        heading: the tag of the headings.
    """
    parts = paragraphs(warnings(result))
    for table in tables(result):
        above = _bars(result.rows) if table.title == "Stages" else ""
        parts += table_parts(table, heading, above)
    return [
        *parts,
        element(heading, "Latency"),
        *paragraphs(
            ["Milliseconds of every run, each model on its own scale. The line is the median."]
        ),
        _histograms(result.rows),
    ]


def folded(results: Mapping[str, Benchmark]) -> list[Html]:
    """What each of several benchmarks found, folded away under its name and its times."""
    parts = []
    for name, result in results.items():
        times = [(m.precision, m.ms) for m in result.models]
        times += [(p.peer, p.ms) for p in result.peers]
        said = ", ".join(f"{what} {ms['total'].p50:.1f} ms" for what, ms in times)
        parts.append(details(f"{name}: {said}", found(result, "h3")))
    return parts


def flat_ms(ms: dict[str, Percentiles], prefix: str = "") -> dict[str, object]:
    """Percentiles by stage as columns, such as `infer_p50_ms`."""
    return {
        f"{prefix}{stage}_{p}_ms": value
        for stage, percentiles in ms.items()
        for p, value in asdict(percentiles).items()
    }


def ap_points(ap: float | None) -> float | None:
    """AP of a CSV file: in points, as in tables."""
    return None if ap is None else round(100 * ap, 3)


def _bars(rows: Sequence[Row]) -> Html:
    """A bar for each row, with the medians of the stages one after the other."""
    figure = load_matplotlib().Figure(figsize=(10, 1.4 + 0.45 * len(rows)))
    axes = figure.add_subplot()
    left = np.zeros(len(rows))
    for stage, color in zip(STAGES[1:], COLORS, strict=False):
        widths = np.array([row.ms[stage].p50 for row in rows])
        axes.barh(range(len(rows)), widths, left=left, color=color, label=stage, height=0.6)
        left += widths
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_xlim(0, 1.05 * left.max())
    axes.invert_yaxis()
    axes.set_xlabel("ms, medians of the stages")
    axes.legend(ncols=len(STAGES) - 1, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def _histograms(rows: Sequence[Row]) -> Html:
    figure: Any = load_matplotlib().Figure(figsize=(10, 1.9 * len(rows)))
    for number, row in enumerate(rows, 1):
        axes = figure.add_subplot(len(rows), 1, number)
        values = np.asarray(row.runs_ms["total"])
        axes.hist(values, bins=min(40, max(5, len(values) // 2)), color=COLORS[0])
        axes.axvline(float(np.median(values)), color=COLORS[1], linewidth=1.5)
        axes.set_title(f"{row.name}, {len(values)} runs", fontsize=10)
        axes.set_ylabel("runs")
        axes.yaxis.get_major_locator().set_params(integer=True)
    figure.axes[-1].set_xlabel("ms, from a decoded frame to final boxes")
    return svg(figure)


def _csv_row(row: Row) -> dict[str, object]:
    """A row of the CSV file; a peer has no precision, limit or ratio."""
    first = getattr(row, "times_as_fast_as_first", None)
    return {
        "model": row.name,
        "precision": getattr(row, "precision", None),
        "height": row.input[0],
        "width": row.input[1],
        **flat_ms(row.ms),
        **{name: getattr(row, name, None) for name in _FIGURES},
        **{name: ap_points(getattr(row, name, None)) for name in ("ap", "ap50")},
        **{f"times_first_{k}": getattr(first, k, None) for k in ("value", "low", "high")},
    }
