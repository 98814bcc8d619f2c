"""The ablations beside the paper's figures, as Markdown, JSON and plots."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.benchmarks.ablations.figure4 import Figure4
from retinart.benchmarks.ablations.paper import BEST, PaperTable, Row
from retinart.benchmarks.ablations.run import Ablations
from retinart.engine.common.files import atomic_path
from retinart.engine.common.html_page import COLORS, load_matplotlib, why_no_page
from retinart.engine.common.table import Table
from retinart.engine.common.typed_json import write_typed

FIGURES = ("AP", "AP50", "AP75")


def write_results(folder: Path, result: Ablations, tables: Sequence[PaperTable]) -> list[Path]:
    """Write `ablations.json`, `.md` and, with matplotlib, `ablations.png` and `figure4.png`.

    Args:
        folder: where to.
        result: with the command that reproduces it.
        tables: that the result holds.

    Returns:
        The files written.
    """
    paths = [folder / "ablations.json", folder / "ablations.md"]
    write_typed(paths[0], result)
    with atomic_path(paths[1]) as temporary:
        temporary.write_text(markdown(result, tables), encoding="utf-8")
    if not why_no_page():
        figures = {"ablations": _draw(result, tables)}
        if result.figure4 is not None:
            figures["figure4"] = _draw_figure4(result.figure4)
        for name, figure in figures.items():
            paths.append(folder / f"{name}.png")
            with atomic_path(paths[-1]) as temporary:
                figure.savefig(temporary, dpi=130, format="png")
    return paths


def markdown(result: Ablations, tables: Sequence[PaperTable]) -> str:
    """All tables, what was compared, and how to do it again."""
    budget = result.budget
    height, width = budget.size
    several = "; mean and standard deviation of the seeds" if len(result.seeds) > 1 else ""
    parts = [
        "# Ablations of the focal loss",
        f"`{budget.model}` from scratch at {height}x{width} pixels, {budget.epochs} epochs "
        f"of batches of {budget.batch_size}, {budget.optimizer}, learning rate {budget.lr}, "
        f"seeds {', '.join(map(str, result.seeds))}. AP is COCO's on the test images, 0 to 100"
        f"{several}. The paper's AP is ResNet-50's (OHEM: ResNet-101's) on COCO at 600 pixels, so "
        "compare the order in the columns and not the values.",
    ]
    for paper in tables:
        rows = [_cells(result, row) for row in paper.rows]
        table = Table(head=(*paper.head, *FIGURES, "paper's AP"), rows=rows)
        parts += [f"## {paper.title}", table.markdown()]
    parts += ["\n".join(verdict(result, tables))] if verdict(result, tables) else []
    if result.figure4 is not None:
        title = "## Share of the loss that the hardest anchors hold (figure 4)"
        parts += [title, _figure4(result.figure4).markdown()]
    parts += ["## To reproduce it", f"    {result.command}"]
    parts.append("\n".join(f"- {name}: {value}" for name, value in result.machine.rows()))
    return "\n\n".join(parts) + "\n"


def verdict(result: Ablations, tables: Sequence[PaperTable]) -> list[str]:
    """Whether the focal loss was ahead of the best of each baseline, a sentence each."""
    lines = []
    ours = result.points(BEST, "AP")
    for table in tables:
        rivals = [
            (statistics.mean(points), " ".join(row.cells))
            for row in table.rows
            if row.training != BEST and (points := result.points(row.training, "AP"))
        ]
        if table.name not in ("alpha", "ohem") or not rivals or not ours:
            continue
        (best, cells), ap = max(rivals), statistics.mean(ours)
        lines.append(
            f"The focal loss (AP {ap:.1f}) {'beats' if ap > best else 'does not beat'} the best of "
            f"this table: {table.title}, {cells} (AP {best:.1f})."
        )
    return lines


def _cells(result: Ablations, row: Row) -> tuple[str, ...]:
    diverged = sum(cell.diverged is not None for cell in result.cells[row.training.name])
    found = []
    for figure in FIGURES:
        values = result.points(row.training, figure)
        text = f"{statistics.mean(values):.1f}" if values else "diverged"
        if len(values) > 1:
            text += f" ± {statistics.stdev(values):.1f}"
        found.append(text + (f" ({diverged} diverged)" if values and diverged else ""))
    return (*row.cells, *found, "-" if row.paper is None else str(row.paper))


def _figure4(figure4: Figure4) -> Table:
    """The figure in numbers: what the hardest anchors hold."""
    shares = list(figure4.negative.gammas["0"].hardest)
    rows = [
        (f"{kind} ({losses.anchors})", gamma, *(f"{100 * curve.hardest[s]:.1f}%" for s in shares))
        for kind, losses in (("positive", figure4.positive), ("negative", figure4.negative))
        for gamma, curve in losses.gammas.items()
    ]
    head = ("anchors", "gamma", *(f"hardest {100 * float(s):g}%" for s in shares))
    return Table(head=head, rows=rows)


def _draw(result: Ablations, tables: Sequence[PaperTable]) -> Any:
    """Bars of ours and marks of the paper's, a panel for each table."""
    figure = load_matplotlib().Figure(figsize=(4.2 * len(tables), 5), layout="constrained")
    axes = figure.subplots(1, len(tables), squeeze=False)[0]
    for panel, table in zip(axes, tables, strict=True):
        names = [" ".join(c for c in row.cells if c != "-") for row in table.rows]
        points = (result.points(row.training, "AP") for row in table.rows)
        panel.bar(names, [statistics.mean(p or [0.0]) for p in points], color=COLORS[0],
                  label="here")  # fmt: skip
        marks = [(n, r.paper) for n, r in zip(names, table.rows, strict=True)
                 if isinstance(r.paper, float)]  # fmt: skip
        panel.plot(*zip(*marks, strict=True), "D", color=COLORS[1], label="paper, on COCO")
        panel.set_title(table.title, fontsize=8)
        panel.set_xlabel(", ".join(table.head))
        panel.tick_params(axis="x", rotation=70, labelsize=8)
    axes[0].set_ylabel("AP")
    axes[0].legend()
    return figure


def _draw_figure4(figure4: Figure4) -> Any:
    figure = load_matplotlib().Figure(figsize=(9, 4), layout="constrained")
    kinds = {"positive": figure4.positive, "negative": figure4.negative}
    for panel, (kind, losses) in zip(figure.subplots(1, 2), kinds.items(), strict=True):
        for color, (gamma, found) in zip(COLORS, losses.gammas.items(), strict=False):
            panel.plot(figure4.x, found.curve, color=color, label=f"γ = {gamma}")
        panel.set_title(f"{losses.anchors} {kind} anchors")
        panel.set_xlabel("share of the anchors, easiest first")
        panel.set_ylabel("cumulative share of the loss")
        panel.legend()
    return figure
