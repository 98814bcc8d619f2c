"""Areas of a picture from a JSON file: regions to detect in, lines and zones to count at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from retinart.engine.common.bounded_reading import read_json
from retinart.engine.common.typed_json import from_plain
from retinart.engine.errors import BadInput

Point = tuple[float, float]  # x, y in pixels
Anchor = Literal["center", "bottom"]

_SAME_SHAPE = 0.01  # of the ratio of the sides; codecs round sizes
_MOST_POINTS = 1000  # each side of a polygon is compared with all others
_FORM = (
    'Write {"size": [1920, 1080], "regions": [{"name": "road", "points": [[0, 400], [1900, 400], '
    "[1900, 1000]]}]}, with points in pixels of a picture of that width and height"
)


@dataclass(frozen=True, kw_only=True)
class Polygon:
    """A named polygon; its last point joins the first."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Region(Polygon):
    """Where detections are kept: inside of it, or outside."""

    keep: Literal["inside", "outside"] = "inside"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line that objects cross. Seen from `start` towards `end`, they go to its left or right."""

    name: str
    start: Point
    end: Point


@dataclass(frozen=True, kw_only=True)
class Areas:
    """What a file of areas holds.

    Attributes:
        size: (width, height) of the picture that the points are in. They are scaled to pictures of
            another size.
        regions: where detections are kept.
        lines, zones: where tracked objects are counted.
        anchor: the point of a box that counts: its centre, or the middle of its lower side.

    Raises:
        BadInput: a point lies outside of the picture, a polygon crosses itself or has no area, or
            all areas together have more than 1000 points.
    """

    size: tuple[int, int]
    regions: tuple[Region, ...] = ()
    lines: tuple[Line, ...] = ()
    zones: tuple[Polygon, ...] = ()
    anchor: Anchor = "center"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise BadInput(f"`size` is {self.size}", fix="Give width and height in pixels")
        polygons: list[tuple[str, Polygon]] = [("region", region) for region in self.regions]
        polygons += [("zone", zone) for zone in self.zones]
        if (count := sum(len(p.points) for _, p in polygons) + 2 * len(self.lines)) > _MOST_POINTS:
            raise BadInput(
                f"the areas have {count:,} points", fix=f"Give at most {_MOST_POINTS:,} in all"
            )
        for kind, polygon in polygons:
            what = f"the {kind} {polygon.name}"
            self._check_inside(what, polygon.points)
            _check_polygon(what, polygon.points)
        for line in self.lines:
            what = f"the line {line.name}"
            self._check_inside(what, (line.start, line.end))
            if line.start == line.end:
                raise BadInput(f"{what} has no length", fix="Give two points")
        names = Counter(
            [polygon.name for _, polygon in polygons] + [line.name for line in self.lines]
        )
        for name, count in names.items():
            if count > 1:
                raise BadInput(f"{count} areas are called {name}", fix="Give each its own name")

    @property
    def counts(self) -> bool:
        """Whether there is something to count at."""
        return bool(self.lines or self.zones)

    def how_scaled(self, width: int, height: int) -> str:
        """What happens to the areas in a picture of another size, for people; else ""."""
        if (width, height) == self.size:
            return ""
        w, h = self.size
        same = abs((width * h) / (height * w) - 1) < _SAME_SHAPE
        how = "scaled" if same else "stretched, because the shapes differ"
        return f"{width}x{height}, and the areas are for {w}x{h}: they are {how}"

    def _check_inside(self, what: str, points: Sequence[Point]) -> None:
        width, height = self.size
        for x, y in points:
            if not (0 <= x <= width and 0 <= y <= height):
                raise BadInput(
                    f"{what} has the point ({x:g}, {y:g})",
                    why=f"the picture is {width}x{height}",
                    fix="Give points inside of the picture, or correct `size`",
                )


def read_areas(path: Path) -> Areas:
    """The areas in a JSON file.

    Raises:
        BadInput: the file cannot be read, or an area makes no sense.
    """
    data = read_json(path, noun="file of areas", fix=_FORM)
    return from_plain(Areas, data, str(path), fix=_FORM, verdict="cannot be used")


def _check_polygon(what: str, points: Sequence[Point]) -> None:
    if len(points) < 3:
        raise BadInput(f"{what} has {len(points)} points", fix="Give at least 3")
    sides = list(zip(points, [*points[1:], points[0]], strict=True))
    for (i, one), (j, other) in combinations(enumerate(sides), 2):
        neighbours = j - i == 1 or (i == 0 and j == len(sides) - 1)
        if _meet(one, other, neighbours=neighbours):
            raise BadInput(
                f"{what} crosses itself",
                why=f"the side from {_shown(one[0])} to {_shown(one[1])} meets the side from "
                f"{_shown(other[0])} to {_shown(other[1])}",
                fix="Give the corners in order around it",
            )
    if math.isclose(sum(_cross((0, 0), a, b) for a, b in sides), 0, abs_tol=1e-6):
        raise BadInput(f"{what} has no area", fix="Give corners that are not on one line")


def _meet(one: tuple[Point, Point], other: tuple[Point, Point], *, neighbours: bool) -> bool:
    """Whether two sides have a common point; neighbours share a corner anyway."""
    (a, b), (c, d) = one, other
    if neighbours:
        corner, p, q = (b, a, d) if b == c else (a, b, c)
        backwards = (p[0] - corner[0]) * (q[0] - corner[0]) + (p[1] - corner[1]) * (
            q[1] - corner[1]
        )
        return _cross(corner, p, q) == 0 and backwards > 0  # the second runs back over the first
    turns = _cross(a, b, c), _cross(a, b, d), _cross(c, d, a), _cross(c, d, b)
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    ends = ((a, b, c), (a, b, d), (c, d, a), (c, d, b))
    return any(turn == 0 and _between(*end) for turn, end in zip(turns, ends, strict=True))


def _between(a: Point, b: Point, c: Point) -> bool:
    """Whether c, which is on the line through a and b, is between them."""
    return all(min(a[i], b[i]) <= c[i] <= max(a[i], b[i]) for i in (0, 1))


def _cross(o: Point, a: Point, b: Point) -> float:
    """The cross product of o to a and o to b: its sign tells the side of b."""
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def _shown(point: Point) -> str:
    return f"({point[0]:g}, {point[1]:g})"
