"""Text never becomes HTML by itself, and a name never becomes a formula."""

from __future__ import annotations

import re
from pathlib import Path

from retinart.engine.common.html_page import details, load_matplotlib, paragraphs, svg, write_page
from retinart.engine.common.markup import Html, element, joined
from retinart.engine.common.table import Table

EVIL = "</code><script>alert(1)</script> & \"'"


def test_elements_escape_what_is_not_html() -> None:
    inner = element("b", "1 < 2")
    assert inner == "<b>1 &lt; 2</b>"
    assert element("p", inner, " & 3", 4, kind='a"b') == (
        '<p class="a&quot;b"><b>1 &lt; 2</b> &amp; 34</p>'
    )
    assert joined(["<", Html("<br>")]) == "&lt;<br>"


def test_a_page_holds_no_markup_of_a_stranger(tmp_path: Path) -> None:
    """A record's field closed the <code> that it stood in, and its script ran."""
    table = Table(title=EVIL, head=["name", EVIL], rows=[[EVIL, 1]], notes=[EVIL])
    parts = [EVIL, *paragraphs([EVIL]), details(EVIL, [table.html(), EVIL]), element("h2", EVIL)]
    write_page(tmp_path / "a.html", EVIL, parts)
    page = (tmp_path / "a.html").read_text()
    assert "<script" not in page and "</code>" not in page
    assert page.count("&lt;script&gt;") == 9


def test_names_in_a_figure_are_no_formulas() -> None:
    """A checkpoint called a$\\frac{$b.pt made the page fail after all measuring."""
    name = r"a$\frac{$b & <c>"
    axes = load_matplotlib().Figure().add_subplot()
    axes.barh(range(2), [1, 2], label=name)
    axes.set_yticks(range(2), [name, "$x$"])
    axes.set_xscale("log")
    axes.set_title(name)
    axes.legend()
    drawn = re.sub("<!--.*?-->", "", svg(axes.figure))
    assert drawn.count("a$\\frac{$b &amp; &lt;c&gt;") >= 3 and "$x$" in drawn
    assert "mathdefault" not in drawn  # powers of ten are still set as formulas
