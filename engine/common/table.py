"""One table: as text for a terminal, as Markdown, as HTML and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retinart.engine.common.csv_cells import plain_cell
from retinart.engine.common.files import atomic_path
from retinart.engine.common.markup import Html, element
from retinart.engine.common.printable import in_a_line


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under a head.

    Attributes:
        rows: cells, each shown as `str` shows it.
        head: names of the columns; empty for a list of names and values.
        words: number of columns, from the first, whose cells are words. Text puts words at the left
            of a column and numbers at its right.
        title: for the heading above it.
        notes: sentences for the text below it.
    """

    rows: Sequence[Sequence[object]]
    head: Sequence[str] = ()
    words: int = 1
    title: str = ""
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Columns two spaces apart."""
        return "\n".join("  ".join(line).rstrip() for line in self._padded())

    def markdown(self) -> str:
        """A table of Markdown, which has to have a head. Its columns line up in a terminal."""
        head, *rows = self._padded(bar="\\|")
        rule = ["-" * len(cell) for cell in head]
        rule[self.words :] = [f"{dashes[1:]}:" for dashes in rule[self.words :]]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])

    def html(self) -> Html:
        """A table of HTML. A wide one scrolls, and its first column stays in view."""
        body = element("tbody", *(_row(cells, "td") for cells in self.rows))
        if not self.head:
            return element("table", body, kind="text")
        head = element("thead", _row(self.head, "th"))
        return element("div", element("table", head, body), kind="wide")

    @classmethod
    def of(cls, records: Sequence[Mapping[str, object]]) -> Table:
        """A table of records that all have the same names."""
        return cls(head=list(records[0]), rows=[list(record.values()) for record in records])

    def write_csv(self, path: Path) -> None:
        """Write the rows as CSV; the file has its name once it is whole."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.csv(), encoding="utf-8", newline="")

    def csv(self) -> str:
        """Comma-separated values. None is an empty cell, and numbers keep all their digits.

        A text that a spreadsheet would run as a formula begins with a '.
        """
        text = io.StringIO()
        csv.writer(text).writerows(map(plain_cell, cells) for cells in self._lines())
        return text.getvalue()

    def _padded(self, bar: str = "|") -> list[list[str]]:
        """All lines, each column as wide as its widest cell; `bar` stands for | in a cell."""
        lines = [[in_a_line(str(cell)).replace("|", bar) for cell in row] for row in self._lines()]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        return [
            [
                cell.ljust(width) if i < self.words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            for line in lines
        ]

    def _lines(self) -> list[Sequence[object]]:
        return [self.head, *self.rows] if self.head else list(self.rows)


def _row(cells: Sequence[object], tag: str) -> Html:
    return element("tr", *(element(tag, cell) for cell in cells))
