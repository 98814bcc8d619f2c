"""Cells of CSV files that spreadsheets do not run."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def plain_cell(cell: object) -> object:
    """A cell that a spreadsheet takes for text: a text that begins like a formula gets a '.

    A name of a class or a file may come from a stranger, and =HYPERLINK(...) would be run. Numbers
    and texts that are numbers stay as they are.
    """
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _is_number(cell):
        return f"'{cell}"
    return cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
