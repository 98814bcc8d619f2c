"""Text of strangers, such as names of files and classes, as a terminal may show it."""

from __future__ import annotations

import re

# Control characters, and those that turn the direction of what follows. Lines and tabs stay.
_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_LINE = re.compile(f"[\t\n]|{_TEXT.pattern}")


def printable(text: str) -> str:
    r"""The text with escapes for what a terminal would act on: \x1b begins a command there."""
    return _TEXT.sub(_escape, text)


def in_a_line(text: str) -> str:
    r"""As `printable`, and with \n and \t for line breaks and tabs."""
    return _LINE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
