"""An HTML page: what stands out, and what a small screen shows."""

from __future__ import annotations

from pathlib import Path

from retinart.engine.common.html_page import paragraphs, write_page


def test_a_warning_does_not_look_like_text() -> None:
    assert paragraphs(["All is <well>.", "WARNING: it is not."]) == [
        "<p>All is &lt;well&gt;.</p>",
        '<p class="warning">WARNING: it is not.</p>',
    ]


def test_a_figure_shrinks_to_the_screen(tmp_path: Path) -> None:
    """Seen: at least 36 rem wide, so that a phone cut the right half off."""
    write_page(tmp_path / "a.html", "t", paragraphs(["WARNING"]))
    page = (tmp_path / "a.html").read_text()
    (svg,) = [line for line in page.splitlines() if line.startswith("svg")]
    assert "max-width: 100%" in svg and "min-width" not in svg
    assert ".warning {" in page
