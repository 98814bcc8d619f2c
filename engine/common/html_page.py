"""An HTML page in one file that needs no network. Its figures are SVG in the text's colour."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.engine.common.files import atomic_path
from retinart.engine.common.markup import Html, element, joined
from retinart.engine.common.table import Table
from retinart.engine.errors import MissingDependency

INK = "#808080"  # of axes and text; a page replaces it by the colour of its text
COLORS = ("#3b7dd8", "#d8433b", "#2e9e5b", "#a05bc8", "#c9870a", "#1f9aa8", "#c2478f", "#7a7f2a")
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { padding: .15rem .7rem .15rem 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: Canvas; }
.text td { text-align: left; vertical-align: top; } .text td:last-child { white-space: normal;
  overflow-wrap: anywhere; }
thead th, tr.first td { border-bottom: 1px solid #8888; }
svg, img, video { height: auto; max-width: 100%; }
pre { overflow-x: auto; font-size: .85rem; }
.warning { border-left: .3rem solid #c9870a; padding-left: .6rem; font-weight: 600; }
code { font-size: .9em; overflow-wrap: anywhere; }
details { border-top: 1px solid #8888; } details:last-of-type { border-bottom: 1px solid #8888; }
details > :not(summary) { margin-left: 1rem; }
summary { cursor: pointer; padding: .5rem 0; } h3 { font-size: 1rem; margin-top: 1.5rem; }
"""


def load_matplotlib() -> Any:
    """The module matplotlib.figure.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise MissingDependency.package("matplotlib", "report", "A report") from error
    return matplotlib.figure


def why_no_page() -> str:
    """Why no page can be drawn here, and what to install; "" where one can."""
    try:
        load_matplotlib()
    except MissingDependency as error:
        return str(error)
    return ""


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page.

    Args:
        path: the HTML file.
        title: plain text, also its heading.
        parts: in order; a part that is not `Html` is escaped.
    """
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{element('title', title)}<style>{_STYLE}</style></head>"
        f"<body>{element('h1', title)}{joined(parts)}</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def paragraphs(sentences: Sequence[str]) -> list[Html]:
    """A paragraph for each sentence; one that begins with WARNING stands out."""
    return [
        element("p", sentence, kind="warning" if sentence.startswith("WARNING") else "")
        for sentence in sentences
    ]


def table_parts(table: Table, heading: str = "h2", above: str = "") -> list[Html]:
    """A table below its title and something more, and its notes below the table."""
    title = joined([element(heading, table.title), above])
    return [title, table.html(), *paragraphs(table.notes)]


def details(title: str, parts: Sequence[str]) -> Html:
    """A line that unfolds the parts below it."""
    return element("details", element("summary", title), *parts)


def svg(figure: Any) -> Html:
    """A figure of matplotlib on the page's own background.

    The ids get a prefix, because browsers do not resolve references into a collapsed <details>.
    """
    content = svg_text(figure)
    content = content[content.index("<svg") :].replace(INK, "currentColor")
    mine = hashlib.sha256(content.encode()).hexdigest()[:8]
    content = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{mine}-", content)
    return element("div", Html(content), kind="wide")


def svg_text(figure: Any) -> str:
    """The text of an SVG file of a matplotlib figure, in a grey that fits any background."""
    import matplotlib

    paint(figure, INK)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "retinart"}):
        figure.tight_layout()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return text.getvalue()


def paint(figure: Any, ink: str) -> None:
    """Give the axes, ticks, titles and legends of a figure one colour; show names as they are."""
    _leave_names_as_they_are(figure)
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(which="both", colors=ink)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(ink)
        for spine in axes.spines.values():
            spine.set_color(ink)
        if (legend := axes.get_legend()) is not None:
            for text in legend.get_texts():
                text.set_color(ink)


def _leave_names_as_they_are(figure: Any) -> None:
    """A $ in the name of a file or a layer begins no formula, which might not even be one.

    The numbers of an axis stay formulas, for powers of ten.
    """
    import matplotlib.text
    import matplotlib.ticker

    numbers = (matplotlib.ticker.ScalarFormatter, matplotlib.ticker.LogFormatter)
    for text in figure.findobj(matplotlib.text.Text):
        text.set_parse_math(False)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), numbers):
                for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                    tick.label1.set_parse_math(True)
