"""How many pixels an image may have: a small file can ask for all of the memory.

The limit stands in the environment, so that the processes which a command starts have it too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retinart.engine.errors import BadInput
from retinart.engine.media.header import Header

MAX_PIXELS = 100_000_000
_LIMIT = "RETINART_MAX_PIXELS"
_MOST_PIXELS, _LONGEST_SIDE = 1 << 30, 1 << 20  # of OpenCV


def pixel_limit() -> int:
    """The most pixels that an image may have; RETINART_MAX_PIXELS of the environment changes it.

    Raises:
        BadInput: that is not a number above 0.
    """
    text = os.environ.get(_LIMIT, str(MAX_PIXELS))
    if not text.isdecimal() or not int(text):
        raise BadInput(f"{_LIMIT} is {text!r}", fix="Give a whole number of pixels from 1 on")
    return int(text)


@contextmanager
def limited_pixels(limit: int) -> Iterator[None]:
    """Change the most pixels that an image may have, for this process and those that it starts.

    Raises:
        BadInput: the limit is below 1.
    """
    if limit < 1:
        raise BadInput(f"`max_pixels` is {limit}", fix="Give a whole number from 1 on")
    before = os.environ.get(_LIMIT)
    os.environ[_LIMIT] = str(limit)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_LIMIT]
        else:
            os.environ[_LIMIT] = before


def check_pixels(header: Header, path: Path) -> None:
    """Refuse an image that is too large, before it is decoded.

    Raises:
        BadInput: it has more pixels than the limit, or than OpenCV reads.
    """
    height, width = header.stored
    what, limit = f"cannot decode the image {path}", pixel_limit()
    if height * width > _MOST_PIXELS or max(height, width) > _LONGEST_SIDE:
        raise BadInput(
            what,
            why=f"its size is {width}x{height}, and OpenCV reads at most {_MOST_PIXELS} pixels and "
            f"{_LONGEST_SIDE} a side",
            fix="Make it smaller, or cut it into tiles",
        )
    if height * width > limit:  # in the words of Pillow
        raise BadInput(
            what,
            why=f"image size ({height * width} pixels) exceeds limit of {limit} pixels, could be "
            "decompression bomb DOS attack",
            fix="Make it smaller or cut it into tiles; if you trust it, raise `max_pixels`",
        )
