"""The grids of P3 to P7."""

from __future__ import annotations

LEVEL_STRIDES = (8, 16, 32, 64, 128)


def grid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Grid (Hi, Wi) of P3 to P7 for an input of height x width, multiples of 32."""
    h, w, grids = height // 8, width // 8, []
    for _ in LEVEL_STRIDES:
        grids.append((h, w))
        h, w = (h + 1) // 2, (w + 1) // 2
    return grids
