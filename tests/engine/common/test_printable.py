"""Names of strangers do not command a terminal."""

from __future__ import annotations

from retinart.engine.common.printable import in_a_line, printable
from retinart.engine.common.table import Table
from retinart.engine.evaluation.problems import Problems

EVIL = "\x1b[2J\rfine\x9b\u202e\x07"


def test_control_characters_become_escapes() -> None:
    assert printable(EVIL) == r"\x1b[2J\rfine\x9b\u202e\x07"
    assert printable("a\tb\nGröße 猫 🐈") == "a\tb\nGröße 猫 🐈"
    assert in_a_line("a\tb\nc") == r"a\tb\nc"


def test_tables_and_problems_keep_their_lines() -> None:
    table = Table(head=("class\n", "AP"), rows=[(f"a|{EVIL}\nb", 1.0)])
    assert len(table.text().splitlines()) == 2 and printable(table.text()) == table.text()
    assert r"| a\|\x1b[2J" in table.markdown() and len(table.markdown().splitlines()) == 3
    problems = Problems()
    problems.add("images", "dropped", f"{EVIL}\n")
    (text,) = map(str, problems.records())
    assert text == r"1 images (dropped): \x1b[2J\rfine\x9b\u202e\x07\n"
