"""Tables of the ablations beside the paper's, as Markdown, JSON and plots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.benchmarks.ablations.tables import BEST, Row, Table
from retinart.benchmarks.latency.report import why_no_report
from retinart.engine.common.files import atomic_path
from retinart.engine.common.html_page import COLORS, load_matplotlib

FIGURES = ("AP", "AP50", "AP75")


def write_results(folder: Path, result: dict[str, Any], tables: Sequence[Table]) -> list[Path]:
    """Write `ablations.json`, `.md` and, with matplotlib, `ablations.png` and `figure4.png`.

    Args:
        folder: where to.
        result: of `ablate`, with `command` that reproduces it.
        tables: those that it holds.

    Returns:
        The files written.
    """
    paths = [folder / "ablations.json", folder / "ablations.md"]
    for path, text in zip(
        paths, (json.dumps(result, indent=1) + "\n", markdown(result, tables)), strict=True
    ):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if not why_no_report():
        figures = {"ablations": _draw(result, tables)}
        if result["figure4"]:
            figures["figure4"] = _draw_figure4(result["figure4"])
        for name, figure in figures.items():
            paths.append(folder / f"{name}.png")
            with atomic_path(paths[-1]) as temporary:
                figure.savefig(temporary, dpi=130, format="png")
    return paths


def points(result: dict[str, Any], row: Row, figure: str = "AP") -> list[float]:
    """A figure of a row's training by seed, 0 to 100; without those that diverged."""
    runs = result["runs"][row.run.name]
    return [100 * (r["figures"][figure] or 0.0) for r in runs if r["figures"] is not None]


def markdown(result: dict[str, Any], tables: Sequence[Table]) -> str:
    """All tables, what was compared, and how to do it again."""
    budget = result["budget"]
    height, width = budget["size"]
    lines = [
        "# Ablations of the focal loss",
        "",
        f"`{budget['model']}` from scratch at {height}x{width} pixels, {budget['epochs']} epochs "
        f"of batches of {budget['batch_size']}, {budget['optimizer']}, learning rate "
        f"{budget['lr']}, seeds {', '.join(map(str, budget['seeds']))}. "
        "AP is COCO's on the test images, 0 to 100"
        + ("; mean and standard deviation of the seeds." if len(budget["seeds"]) > 1 else ".")
        + " The paper's AP is that of ResNet-50 (OHEM: ResNet-101) on COCO at 600 pixels, so "
        "columns compare by order and not by value.",
    ]
    for table in tables:
        lines += ["", f"## {table.title}", "", _line((*table.head, *FIGURES, "paper's AP"))]
        lines.append("|" + "---|" * (len(table.head) + len(FIGURES) + 1))
        lines += [_line(_cells(result, row)) for row in table.rows]
    lines += ["", *verdict(result, tables)]
    if result["figure4"]:
        lines += ["", *_figure4_lines(result["figure4"])]
    lines += ["", "## To reproduce it", "", f"    {result['command']}", ""]
    facts = (f"- {name}: {value}" for name, value in result["machine"].items())
    return "\n".join([*lines, *facts]) + "\n"


def verdict(result: dict[str, Any], tables: Sequence[Table]) -> list[str]:
    """Whether the focal loss was ahead of the best of each baseline, plainly."""
    lines = []
    for table in tables:
        if table.name not in ("alpha", "ohem"):
            continue
        rivals = [
            (statistics.mean(points(result, row)), " ".join(row.cells))
            for row in table.rows
            if row.run != BEST and points(result, row)
        ]
        ours = [r for r in result["runs"].get(BEST.name, []) if r["figures"] is not None]
        if not rivals or not ours:
            continue
        best, cells = max(rivals)
        ap = statistics.mean(100 * (r["figures"]["AP"] or 0.0) for r in ours)
        lines.append(
            f"The focal loss (AP {ap:.1f}) {'beats' if ap > best else 'does not beat'} the best of "
            f"this table: {table.title}, {cells} (AP {best:.1f})."
        )
    return lines


def _cells(result: dict[str, Any], row: Row) -> tuple[str, ...]:
    runs = result["runs"][row.run.name]
    paper = "-" if row.paper is None else str(row.paper)
    diverged = sum(r["figures"] is None for r in runs)
    found = []
    for figure in FIGURES:
        values = points(result, row, figure)
        text = f"{statistics.mean(values):.1f}" if values else "diverged"
        if len(values) > 1:
            text += f" ± {statistics.stdev(values):.1f}"
        found.append(text + (f" ({diverged} diverged)" if values and diverged else ""))
    return (*row.cells, *found, paper)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _figure4_lines(figure4: dict[str, Any]) -> list[str]:
    """The figure in numbers: what the hardest hold."""
    shares = list(figure4["negative"]["gammas"]["0"]["hardest"])
    lines = [
        "## Share of the loss that the hardest anchors hold (figure 4)",
        "",
        _line(("anchors", "gamma", *(f"hardest {100 * float(s):g}%" for s in shares))),
        "|" + "---|" * (2 + len(shares)),
    ]
    for kind in ("positive", "negative"):
        for gamma, found in figure4[kind]["gammas"].items():
            held = (f"{100 * found['hardest'][s]:.1f}%" for s in shares)
            lines.append(_line((f"{kind} ({figure4[kind]['anchors']})", gamma, *held)))
    return lines


def _draw(result: dict[str, Any], tables: Sequence[Table]) -> Any:
    """Bars of ours and marks of the paper's, a panel for each table."""
    figure = load_matplotlib().Figure(figsize=(4.2 * len(tables), 5), layout="constrained")
    axes = figure.subplots(1, len(tables), squeeze=False)[0]
    for panel, table in zip(axes, tables, strict=True):
        names = [" ".join(c for c in row.cells if c != "-") for row in table.rows]
        values = [statistics.mean(points(result, row) or [0.0]) for row in table.rows]
        panel.bar(names, values, color=COLORS[0], label="here")
        marks = [(n, r.paper) for n, r in zip(names, table.rows, strict=True)
                 if isinstance(r.paper, float)]  # fmt: skip
        panel.plot(*zip(*marks, strict=True), "D", color=COLORS[1], label="paper, on COCO")
        panel.set_title(table.title, fontsize=8)
        panel.set_xlabel(", ".join(table.head))
        panel.tick_params(axis="x", rotation=70, labelsize=8)
    axes[0].set_ylabel("AP")
    axes[0].legend()
    return figure


def _draw_figure4(figure4: dict[str, Any]) -> Any:
    figure = load_matplotlib().Figure(figsize=(9, 4), layout="constrained")
    for panel, kind in zip(figure.subplots(1, 2), ("positive", "negative"), strict=True):
        for color, (gamma, found) in zip(COLORS, figure4[kind]["gammas"].items(), strict=False):
            panel.plot(figure4["x"], found["curve"], color=color, label=f"γ = {gamma}")
        panel.set_title(f"{figure4[kind]['anchors']} {kind} anchors")
        panel.set_xlabel("share of the anchors, easiest first")
        panel.set_ylabel("cumulative share of the loss")
        panel.legend()
    return figure
