"""HTML by elements. An element escapes each child that is not HTML already."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from pathlib import Path


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


def image(path: Path, text: str) -> Html:
    """A JPEG file, kept in the page itself.

    Args:
        text: what it shows, for readers who do not see it.
    """
    return Html(f'<img src="{_inline(path, "image/jpeg")}" alt="{html.escape(text)}">')


def video(path: Path, text: str) -> Html:
    """An MP4 file, kept in the page itself; `text` as in `image`."""
    source = _inline(path, "video/mp4")
    return Html(
        f'<video controls loop muted playsinline src="{source}" aria-label="{html.escape(text)}">'
        "</video>"
    )


def _inline(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
