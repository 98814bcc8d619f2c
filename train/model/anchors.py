"""Anchors as a pure function of their settings (Ren et al. 2015; Lin et al. 2017, section 4).

A  anchors at a position       Hi, Wi  grid of a level       N  all anchors, sum of A * Hi * Wi
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from retinart.engine.model.levels import LEVEL_STRIDES, grid_sizes

Array = npt.NDArray[np.float32]


def base_anchors(
    sizes: tuple[float, ...],
    ratios: tuple[float, ...],
    *,
    order: Literal["ratio_outer", "size_outer"],
    rounding: bool,
) -> Array:
    """The A shapes of one level around the origin.

    Args:
        sizes: square roots of the areas, in pixels.
        ratios: height over width.
        order: whether ratios or sizes vary slowest.
        rounding: round the corners to integers, half to even.

    Returns:
        (A, 4) float32 xyxy in pixels of the network input.
    """
    size = np.asarray(sizes, np.float32)
    root = np.sqrt(np.asarray(ratios, np.float32))
    if order == "ratio_outer":
        widths, heights = np.outer(1 / root, size).ravel(), np.outer(root, size).ravel()
    else:
        widths, heights = np.outer(size, 1 / root).ravel(), np.outer(size, root).ravel()
    base = np.stack([-widths, -heights, widths, heights], axis=1) / 2  # (A, 4)
    if rounding:
        base = np.round(base)
    return base.astype(np.float32)


def level_strides(
    image_size: tuple[int, int],
    grids: list[tuple[int, int]],
    strides: Literal["fixed", "image//grid"],
) -> list[tuple[int, int]]:
    """Stride (y, x) of each level: powers of two, or the padded image's size over the grid's."""
    if strides == "fixed":
        return [(s, s) for s in LEVEL_STRIDES[: len(grids)]]
    return [(image_size[0] // h, image_size[1] // w) for h, w in grids]


def anchors(
    image_size: tuple[int, int],
    *,
    sizes: tuple[tuple[float, ...], ...],
    ratios: tuple[float, ...],
    order: Literal["ratio_outer", "size_outer"],
    rounding: bool,
    center: float,
    strides: Literal["fixed", "image//grid"],
) -> list[Array]:
    """All anchors of an image.

    Args:
        image_size: (height, width) of the padded network input.
        sizes: one tuple of sizes for each level, P3 to P7.
        center: offset of the first centre, in strides.
        ratios, order, rounding: see `base_anchors`.
        strides: see `level_strides`.

    Returns:
        One (Hi * Wi * A, 4) float32 array a level; xyxy in pixels, ordered (y, x, anchor).
    """
    grids = grid_sizes(*image_size)
    out = []
    for level_sizes, (h, w), (sy, sx) in zip(
        sizes, grids, level_strides(image_size, grids, strides), strict=True
    ):
        base = base_anchors(level_sizes, ratios, order=order, rounding=rounding)
        y, x = np.meshgrid(
            (np.arange(h, dtype=np.float32) + center) * sy,
            (np.arange(w, dtype=np.float32) + center) * sx,
            indexing="ij",
        )
        shift = np.stack([x, y, x, y], axis=-1)  # (Hi, Wi, 4)
        out.append((shift[:, :, None] + base).reshape(-1, 4).astype(np.float32))
    return out
