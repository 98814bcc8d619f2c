"""One table, in the four forms that people and programs read."""

from __future__ import annotations

import csv
import io

from retinart.engine.common.table import Table

TABLE = Table(head=("model", "ms"), rows=[("a & b", 9.5), ("c", 123.25)])


def test_text_puts_words_left_and_numbers_right() -> None:
    assert TABLE.text().splitlines() == ["model      ms", "a & b     9.5", "c      123.25"]
    words = Table(rows=[("a", "b"), ("long", "c")], words=2)
    assert words.text().splitlines() == ["a     b", "long  c"]


def test_markdown_lines_up_in_a_terminal() -> None:
    assert TABLE.markdown().splitlines() == [
        "| model |     ms |",
        "| ----- | -----: |",
        "| a & b |    9.5 |",
        "| c     | 123.25 |",
    ]


def test_html_escapes_and_scrolls() -> None:
    text = TABLE.html()
    assert "<td>a &amp; b</td><td>9.5</td>" in text and text.startswith('<div class="wide">')
    assert "<th>ms</th>" in text
    assert Table(rows=[("cpu", "<x>")]).html() == (
        '<table class="text"><tbody><tr><td>cpu</td><td>&lt;x&gt;</td></tr></tbody></table>'
    )


def test_csv_keeps_every_digit_and_leaves_out_none() -> None:
    third = 1 / 3
    text = Table(head=("a", "b"), rows=[(third, None), ("x,y", 2)]).csv()
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [["a", "b"], [repr(third), ""], ["x,y", "2"]]
