"""HTML by elements: whatever is not HTML already is escaped where it is put in."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Html(str):
    """A text that is HTML. Only this module and drawings make it; all other text is escaped."""

    __slots__ = ()


def element(tag: str, *children: object, kind: str = "") -> Html:
    """An element of HTML.

    Args:
        tag: its name.
        children: `Html` goes in as it is, and anything else as escaped text.
        kind: its class in the style sheet; "" for none.
    """
    start = f'<{tag} class="{html.escape(kind)}">' if kind else f"<{tag}>"
    return Html(f"{start}{joined(children)}</{tag}>")


def joined(parts: Iterable[object]) -> Html:
    """HTML and texts, one after the other."""
    return Html(
        "".join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts)
    )
