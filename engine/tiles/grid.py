"""Where the tiles of a picture lie."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from retinart.engine.errors import BadInput

MOST_TILES = 256  # of a picture
_SMALLEST = 32  # pixels of a tile's side
Span = tuple[int, int]  # first pixel, and the one behind the last


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How a picture is divided: into a number of rows and columns, or into tiles of a size.

    Attributes:
        rows, columns: how many tiles; 0 if `size` is given.
        size: height and width of a tile in pixels of the picture; 0 if `rows` are given.
        overlap: share of a tile's side that it has in common with its neighbour, at least. An
            object that is smaller is whole in one of them.

    Raises:
        BadInput: a number that makes no sense.
    """

    rows: int = 0
    columns: int = 0
    size: int = 0
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.5:
            raise BadInput(f"`overlap` is {self.overlap}", fix="Give a share from 0 to 0.5")
        if not self.size and not 1 <= self.rows * self.columns <= MOST_TILES:
            raise BadInput(
                f"`tiles` is {self.rows}x{self.columns}", fix=f"Give 1 to {MOST_TILES} tiles in all"
            )
        if self.size and self.size < _SMALLEST:
            raise BadInput(f"`tiles` is {self.size}", fix=f"Give {_SMALLEST} pixels or more")

    @classmethod
    def parse(cls, text: str, overlap: float = overlap) -> Tiles:
        """`2x3` is two rows of three tiles, `640` is tiles of 640x640 pixels.

        Raises:
            BadInput: it is neither.
        """
        match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text.strip())
        if match is None:
            raise BadInput(
                f"{text!r} are no tiles",
                fix="Give rows and columns, such as 2x3, or the side of a tile, such as 640",
            )
        if match[2] is None:
            return cls(size=max(1, int(match[1])), overlap=overlap)
        return cls(rows=int(match[1]), columns=int(match[2]), overlap=overlap)

    def of(self, size: tuple[int, int]) -> list[tuple[Span, Span]]:
        """The vertical and the horizontal span of each tile; none if one tile would be all of it.

        Args:
            size: (height, width) of the picture in pixels.

        Raises:
            BadInput: the picture has too many.
        """
        down, across = self._spans(size[0], self.rows), self._spans(size[1], self.columns)
        if len(down) * len(across) > MOST_TILES:
            raise BadInput(
                f"a picture of {size[1]}x{size[0]} has {len(down) * len(across):,} tiles",
                why=f"at most {MOST_TILES} are possible",
                fix="Give larger `tiles`",
            )
        if len(down) * len(across) == 1:
            return []
        return [(rows, columns) for rows in down for columns in across]

    def _spans(self, length: int, count: int) -> list[Span]:
        """Spans of one length at equal distances, from end to end."""
        if self.size:
            side = min(self.size, length)
            step = side * (1 - self.overlap)
            count = 1 + math.ceil((length - side) / step - 1e-9)
        else:
            count = min(count, length)
            side = math.ceil(length / (count - (count - 1) * self.overlap))
        if count == 1:
            return [(0, length)]
        starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
        return [(start, start + side) for start in starts]
