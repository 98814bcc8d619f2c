"""What an evaluation says of one confidence: tables, JSON and a page with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.html_page import (
    COLORS,
    load_matplotlib,
    paragraphs,
    svg,
    table_parts,
    write_page,
)
from retinart.engine.common.markup import Html, element
from retinart.engine.common.table import Table
from retinart.engine.evaluation.confusion import Confusion, confusion, confusion_lines
from retinart.engine.evaluation.evaluate import Evaluation, counted, points
from retinart.engine.evaluation.operating_points import (
    ALL,
    Operating,
    operating_json,
    operating_points,
    operating_table,
)

_MANY = 12  # classes; a larger matrix does not fit on a terminal
_DRAWN = 8  # classes with a curve of their own


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """An evaluation at every confidence, and which classes it takes for which at the best one.

    Attributes:
        evaluation: it.
        operating: for all classes together, and for each class with objects.
        confusion: at the confidence that maximises F1 of all classes.
    """

    evaluation: Evaluation
    operating: dict[str, Operating]
    confusion: Confusion

    @classmethod
    def of(cls, evaluation: Evaluation) -> Report:
        """Look at an evaluation."""
        operating = operating_points(evaluation.matches)
        best = operating[ALL].at(operating[ALL].best)["confidence"]
        matrix = confusion(evaluation.dataset, evaluation.found, evaluation.category, best)
        return cls(evaluation=evaluation, operating=operating, confusion=matrix)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, all shares 0 to 1."""
        return {
            **self.evaluation.to_json(),
            "operating": operating_json(self.operating),
            "confusion": self.confusion.to_json(),
        }

    def text(self) -> str:
        """For a terminal; of many classes only the largest confusions."""
        matrix = self.confusion.table()
        if len(self.confusion.classes) > _MANY:
            lines = confusion_lines(self.confusion) or ["no class was detected as another"]
            matrix_text = "\n".join(["The largest confusions", *lines, *matrix.notes])
        else:
            matrix_text = _titled(matrix)
        return f"{_titled(operating_table(self.operating))}\n\n{matrix_text}"

    def write(self, path: Path, name: str) -> None:
        """Write an HTML page.

        Args:
            path: of the page.
            name: of the model.
        """
        found = self.evaluation
        figures = Table(rows=[(k, points(v)) for k, v in found.figures.items()])
        parts = [
            element("p", f"{counted(found)} of {found.dataset.annotations.name}."),
            *paragraphs(found.problems),
            element("h2", "COCO's figures"),
            figures.html(),
            *table_parts(operating_table(self.operating)),
            _curves(self.operating),
            *table_parts(self.confusion.table()),
            _matrix(self.confusion),
        ]
        write_page(path, f"Accuracy of {name}", parts)


def _titled(table: Table) -> str:
    return "\n".join([table.title, table.text(), *table.notes])


def _curves(operating: dict[str, Operating]) -> Html:
    """Precision, recall and F1 over confidence, and precision over recall."""
    figure = load_matplotlib().Figure(figsize=(12, 8))
    confidence = np.arange(len(operating[ALL].f1)) / len(operating[ALL].f1)
    shown = list(operating.items())[: 1 + _DRAWN]
    for number, name in enumerate(("precision", "recall", "f1", "precision over recall"), 1):
        axes = figure.add_subplot(2, 2, number)
        for k, (label, point) in enumerate(shown):
            x = point.recall if number == 4 else confidence
            y = point.precision if number == 4 else getattr(point, name)
            color, width = COLORS[(k - 1) % len(COLORS)], 1.0
            if k == 0:
                color, width = "#808080", 2.5
            axes.plot(x, y, color=color, linewidth=width, label=label)
            best = point.best
            axes.plot(x[best], y[best], "o", color=color, markersize=4)
        axes.set_xlabel("recall" if number == 4 else "confidence")
        axes.set_ylabel("precision" if number == 4 else name.replace("f1", "F1"))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    figure.axes[0].legend(fontsize=7, framealpha=0)
    return svg(figure)


def _matrix(matrix: Confusion) -> Html:
    """The matrix as a picture: the share of each row."""
    names = (*matrix.classes, "background")
    side = max(4.0, 1.5 + 0.35 * len(names))
    figure = load_matplotlib().Figure(figsize=(side, side))
    axes = figure.add_subplot()
    total = matrix.counts.sum(axis=1, keepdims=True)
    share = np.divide(matrix.counts, total, out=np.zeros(matrix.counts.shape), where=total > 0)
    axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix.counts):
        if count and len(names) <= 25:
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column + 0.5, row + 0.5, str(count), ha="center", va="center", color=color)
    ticks = np.arange(len(names)) + 0.5
    axes.set_xticks(ticks, names, rotation=90, fontsize=8)
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set_xlabel("detected")
    axes.set_ylabel("annotated")
    axes.invert_yaxis()
    return svg(figure)
