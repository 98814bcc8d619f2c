"""What generated scenes are painted with: textured backgrounds and objects of a few shapes.

H, W  size of a scene       P  points of an outline
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from retinart.engine.media.images import Image

Floats = npt.NDArray[np.float32]
SHAPES = ("disc", "square", "triangle", "star", "ring", "cross")
_SUBPIXEL_BITS = 4
_FILLS = ("plain", "gradient", "stripes", "noise")


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One object, before it is painted.

    Attributes:
        shape: index into `SHAPES`.
        center: (x, y) in pixels of the scene.
        radius: of the circle around the shape, in pixels.
        aspect: the width is multiplied, the height divided by its square root, before rotation.
        angle: rotation in radians.
        colors: two BGR colours, 0 to 255.
        fill: how the two colours are mixed, a name of `_FILLS`.
        seed: for the pattern, so that it stays the same from frame to frame.
    """

    shape: int
    center: tuple[float, float]
    radius: float
    aspect: float
    angle: float
    colors: tuple[tuple[float, ...], tuple[float, ...]]
    fill: str
    seed: int


class Stamp(NamedTuple):
    """An object's pixels on a scene: the region that holds it, and its coverage there."""

    rows: slice
    columns: slice
    alpha: Floats  # (h, w), 0 to 1
    area: float  # of the whole outline in pixels, also what lies outside of the scene


def random_object(
    rng: np.random.Generator, background: Image, *, radius: tuple[float, float]
) -> SceneObject:
    """An object anywhere on a background (H, W, 3), in colours that stand out from it there."""
    height, width = background.shape[:2]
    size = float(np.exp(rng.uniform(*np.log(radius))))
    size = min(size, 1.6 * min(height, width))  # less than half of it may be outside
    x, y = rng.uniform(0.3 * size, width - 0.3 * size), rng.uniform(0.3 * size, height - 0.3 * size)
    top, left = max(0, int(y - size)), max(0, int(x - size))
    around = background[top : int(y + size) + 1, left : int(x + size) + 1].mean(axis=(0, 1))
    color = rng.uniform(0, 255, 3)
    for _ in range(8):
        if np.linalg.norm(color - around) > 90:
            break
        color = rng.uniform(0, 255, 3)
    second = np.clip(color + rng.normal(0, 45, 3), 0, 255)
    return SceneObject(
        shape=int(rng.integers(len(SHAPES))),
        center=(float(x), float(y)),
        radius=size,
        aspect=float(rng.uniform(0.8, 1.25)),
        angle=float(rng.uniform(0, 2 * math.pi)),
        colors=(tuple(color.tolist()), tuple(second.tolist())),
        fill=_FILLS[int(rng.integers(len(_FILLS)))],
        seed=int(rng.integers(2**31)),
    )


def unit_outline(shape: int) -> list[Floats]:
    """Polygons of a shape within the unit circle: the outline, then its holes; each (P, 2) x, y."""
    name = SHAPES[shape]
    if name == "disc":
        return [_regular(48)]
    if name == "ring":
        return [_regular(48), _regular(48) * np.float32(0.55)]
    if name == "square":
        return [_regular(4)]
    if name == "triangle":
        return [_regular(3)]
    if name == "star":
        radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)[:, None]
        return [(_regular(10) * radii).astype(np.float32)]
    arm = 0.3  # half the width of the cross's arms
    corner = [(1, -arm), (1, arm), (arm, arm)]
    points = [(x, y) for x, y in corner]
    for _ in range(3):
        corner = [(-y, x) for x, y in corner]
        points += corner
    return [np.array(points, np.float32) / np.float32(math.hypot(1, arm))]


def stamp(thing: SceneObject, size: tuple[int, int]) -> Stamp | None:
    """The pixels that an object covers on a scene of (H, W); None when all of it is outside."""
    height, width = size
    stretch = np.array([math.sqrt(thing.aspect), 1 / math.sqrt(thing.aspect)], np.float32)
    c, s = math.cos(thing.angle), math.sin(thing.angle)
    turn = np.array([[c, s], [-s, c]], np.float32)
    center = np.array(thing.center, np.float32)
    outlines = [
        ((p * stretch * np.float32(thing.radius)) @ turn + center).astype(np.float32)
        for p in unit_outline(thing.shape)
    ]
    low = np.floor(outlines[0].min(axis=0)).astype(int) - 1
    high = np.ceil(outlines[0].max(axis=0)).astype(int) + 2
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    right, bottom = min(width, int(high[0])), min(height, int(high[1]))
    if left >= right or top >= bottom:
        return None
    mask = np.zeros((bottom - top, right - left), np.uint8)
    # fillPoly's integer coordinates are pixel centres, ours are corners: hence the half
    fixed = [
        np.round((p - np.array([left, top]) - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
        for p in outlines
    ]
    cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    areas = [_polygon_area(p) for p in outlines]
    alpha = mask.astype(np.float32) / np.float32(255)
    return Stamp(slice(top, bottom), slice(left, right), alpha, areas[0] - sum(areas[1:]))


def paint(canvas: Floats, thing: SceneObject, where: Stamp) -> None:
    """Paint an object over a canvas (H, W, 3), float32 BGR, in place."""
    rng = np.random.default_rng(thing.seed)
    height, width = where.alpha.shape
    y, x = np.mgrid[where.rows, where.columns].astype(np.float32)
    u = (x - thing.center[0]) / thing.radius
    v = (y - thing.center[1]) / thing.radius
    along = u * math.cos(thing.angle) + v * math.sin(thing.angle)  # -1 to 1 over the object
    if thing.fill == "gradient":
        mix = (along + 1) / 2
    elif thing.fill == "stripes":
        mix = (np.sin(along * rng.uniform(6, 14)) > 0).astype(np.float32)
    elif thing.fill == "noise":
        mix = noise(rng, (height, width), cell=max(2.0, thing.radius / 4))
    else:
        mix = np.zeros((height, width), np.float32)
    first, second = (np.array(c, np.float32) for c in thing.colors)
    color = first + np.clip(mix, 0, 1)[..., None] * (second - first)
    region = canvas[where.rows, where.columns]
    region += where.alpha[..., None] * (color - region)


def noise(rng: np.random.Generator, size: tuple[int, int], *, cell: float) -> Floats:
    """Smooth noise (H, W) in about 0 to 1 whose bumps are `cell` pixels wide."""
    height, width = size
    grid = rng.random((int(height / cell) + 2, int(width / cell) + 2), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def background(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """A textured background with clutter, (H, W, 3) uint8 BGR."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    texture = np.zeros(size, np.float32)
    total = 0.0
    for cell in (96, 40, 16, 7, 3):  # multi-scale noise, the coarse scales strong
        weight = rng.uniform(0.1, 1.0) * math.sqrt(cell)
        texture += np.float32(weight) * noise(rng, size, cell=cell)
        total += weight
    texture /= np.float32(total)
    if rng.random() < 0.4:  # stripes
        angle, period = rng.uniform(0, math.pi), rng.uniform(8, 60)
        wave = np.sin((x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period))
        texture += np.float32(rng.uniform(0.05, 0.25)) * wave
    if rng.random() < 0.5:  # a gradient of light
        angle = rng.uniform(0, 2 * math.pi)
        slope = (x / width - 0.5) * math.cos(angle) + (y / height - 0.5) * math.sin(angle)
        texture += np.float32(rng.uniform(0.2, 0.8)) * slope
    low, high = rng.uniform(20, 235, 3), rng.uniform(20, 235, 3)
    canvas = (low + np.clip(texture, 0, 1)[..., None] * (high - low)).astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):
        _texture_blob(rng, canvas)
    for _ in range(int(rng.integers(0, 5))):
        _open_line(rng, canvas)
    return to_image(canvas)


def to_image(canvas: Floats) -> Image:
    """Round and clip a float canvas to 8 bits."""
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def finish(rng: np.random.Generator, canvas: Floats) -> Image:
    """Blur, noise and exposure, as of a camera. (H, W, 3) float32 to uint8 BGR."""
    if (sigma := float(rng.uniform(0, 1.2))) > 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), sigma).astype(np.float32)
    canvas = canvas * np.float32(rng.uniform(0.8, 1.15))
    grain = rng.standard_normal(canvas.shape, dtype=np.float32)
    return to_image(canvas + np.float32(rng.uniform(0, 8)) * grain)


def _texture_blob(rng: np.random.Generator, canvas: Floats) -> None:
    """A ragged patch of another texture with soft edges: noise above a threshold."""
    height, width = canvas.shape[:2]
    shape = noise(rng, (height, width), cell=float(rng.uniform(30, 70)))
    mask = np.clip((shape - rng.uniform(0.72, 0.85)) * 12, 0, 1)[..., None]
    grain = noise(rng, (height, width), cell=float(rng.uniform(2, 8)))[..., None]
    canvas += mask * (rng.uniform(0, 255, 3).astype(np.float32) * grain - canvas) * np.float32(0.8)


def _open_line(rng: np.random.Generator, canvas: Floats) -> None:
    """A wandering line; it may cross itself but is never closed."""
    height, width = canvas.shape[:2]
    start = rng.uniform((0, 0), (width, height))
    steps = rng.normal(0, 45, (int(rng.integers(2, 6)), 2)).cumsum(axis=0)
    points = np.round((start + steps) * 2**_SUBPIXEL_BITS).astype(np.int32)
    color = rng.uniform(0, 255, 3).tolist()
    thickness = int(rng.integers(1, 5))
    line = to_image(canvas)  # anti-aliased lines need 8 bits
    cv2.polylines(line, [points], False, color, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    canvas[:] = line


def _regular(corners: int) -> Floats:
    angle = np.arange(corners) * (2 * math.pi / corners) - math.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def _polygon_area(points: Floats) -> float:
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
