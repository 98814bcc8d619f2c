"""Where tiles lie: they cover a picture, they overlap enough, and they are not too many."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from retinart import BadInput
from retinart.engine.tiles.grid import Tiles


@pytest.mark.parametrize(
    ("tiles", "size", "wanted"),
    [
        (Tiles(rows=1, columns=2, overlap=0), (10, 20), [((0, 10), (0, 10)), ((0, 10), (10, 20))]),
        (Tiles(rows=2, columns=1, overlap=0.5), (30, 9), [((0, 20), (0, 9)), ((10, 30), (0, 9))]),
        (Tiles(size=64, overlap=0), (64, 128), [((0, 64), (0, 64)), ((0, 64), (64, 128))]),
        (Tiles(size=64, overlap=0.25), (40, 112), [((0, 40), (0, 64)), ((0, 40), (48, 112))]),
        (Tiles(rows=1, columns=1), (10, 20), []),  # the picture itself
        (Tiles(size=640), (480, 640), []),
    ],
)
def test_tiles_of_a_picture(tiles: Tiles, size: tuple[int, int], wanted: Any) -> None:
    assert tiles.of(size) == wanted


@pytest.mark.parametrize("seed", range(12))
def test_tiles_cover_all_of_it_and_overlap_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(200, 3000)), int(rng.integers(200, 3000)))
    overlap = float(rng.uniform(0, 0.5))
    if seed % 2:
        tiles = Tiles(
            rows=int(rng.integers(1, 6)), columns=int(rng.integers(1, 6)), overlap=overlap
        )
    else:
        tiles = Tiles(size=int(rng.integers(300, 900)), overlap=overlap)
    found = tiles.of(size) or [((0, size[0]), (0, size[1]))]
    for axis in (0, 1):
        spans = sorted({spans[axis] for spans in found})
        assert spans[0][0] == 0 and spans[-1][1] == size[axis]
        for one, other in pairwise(spans):
            assert one[1] - other[0] >= overlap * (one[1] - one[0]) - 1.5  # whole pixels
        if tiles.rows:
            assert len(spans) == (tiles.rows, tiles.columns)[axis]


@pytest.mark.parametrize(
    ("text", "overlap", "message"),
    [
        ("2x", 0.2, "'2x' are no tiles. Give rows and columns, such as 2x3"),
        ("a", 0.2, "'a' are no tiles"),
        ("-2x2", 0.2, "are no tiles"),
        ("0x3", 0.2, "`tiles` is 0x3. Give 1 to 256 tiles in all"),
        ("20x20", 0.2, "`tiles` is 20x20"),
        ("0", 0.2, "`tiles` is 1. Give 32 pixels or more"),
        ("2x2", 0.6, "`overlap` is 0.6. Give a share from 0 to 0.5"),
        ("2x2", float("nan"), "`overlap` is nan"),
    ],
)
def test_texts_that_are_no_tiles(text: str, overlap: float, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        Tiles.parse(text, overlap)
    assert message in str(caught.value)


def test_a_picture_with_too_many() -> None:
    assert Tiles.parse("2x3", 0.1) == Tiles(rows=2, columns=3, overlap=0.1)
    with pytest.raises(BadInput, match=r"a picture of 9000x9000 has [0-9,]+ tiles: at most 256"):
        Tiles.parse("100").of((9000, 9000))
