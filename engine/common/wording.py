"""Numbers with their nouns."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 image", "1,200 images".

    Args:
        plural: of a noun that does not take an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
