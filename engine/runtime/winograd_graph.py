"""A 3x3 convolution by Winograd's algorithm, written as operators of an OpenVINO graph.

A tile of 4x4 outputs is computed from 6x6 inputs with 36 multiplications a pair of channels instead
of 144: F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
OpenVINO has no such kernel for x86, but it has the operators:

    weights          a product of 36x9 with 9 weights a pair           (36, C, O)
    input tiles      pixels gathered, and a product with 36x36         (N, 36, T, C)
    tiles by weights 36 products at once                               (N, 36, T, O)
    output tiles     a product with 16x36, and pixels gathered         (N, pixels, O)

Channels come last. So each pixel is moved in one piece, and OpenVINO's convolutions read and write
this layout, too. Some rows of tiles go through all steps before the next ones, so that their values
take little memory. All levels of a head go through them together, as they have one weight.

Weights are transformed in each run. That takes about 4% of the time of an R50. Transformed weights
that are kept would take four times the memory of the weights.

Tiles are interpolated at 0, plus and minus the roots of 1/2 and of 2, and infinity. The error is
twice the error of the direct sum; with the usual points (0, 1, -1, 2, -2) it is four times that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import polynomial

from retinart.engine.runtime.openvino_api import load_openvino

OUT, KERNEL = 4, 3  # sides of a tile's outputs, and of a kernel
IN = OUT + KERNEL - 1
_POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))  # and infinity
_VALUES = 1 << 21  # of the inputs or outputs of the tiles that go through all steps together

Sizes = tuple[int, int, int, int]  # channels, outputs, height and width
Matrix = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.integer[Any]]


def sizes_of(convolution: Any) -> Sizes:
    """Channels, outputs, height and width of one."""
    outputs, channels, _, _ = convolution.input_value(1).get_shape()
    shape = convolution.input_value(0).get_partial_shape()
    return channels, outputs, shape[2].get_length(), shape[3].get_length()


def weight_name(convolution: Any) -> str:
    """The name of a convolution's weight. Convolutions with one name share their weight."""
    name: str = convolution.input_value(1).get_node().get_friendly_name()
    return name


@functools.cache
def transforms() -> tuple[Matrix, Matrix, Matrix]:
    """The matrices of output (16, 36), weights (36, 9) and input (36, 36), for flattened tiles.

    Toom and Cook multiply polynomials of degrees 3 and 2 through their values at six points. The
    transpose of their algorithm is a correlation.
    """
    out, weight, frame = np.zeros((OUT, IN)), np.zeros((IN, KERNEL)), np.zeros((IN, IN))
    for i, point in enumerate(_POINTS):
        others = [p for p in _POINTS if p != point]
        out[:, i] = point ** np.arange(OUT)
        weight[i] = point ** np.arange(KERNEL) / math.prod(point - p for p in others)
        frame[i, :-1] = polynomial.polyfromroots(others)
    out[-1, -1] = weight[-1, -1] = 1  # infinity: the highest coefficients
    frame[-1] = polynomial.polyfromroots(_POINTS)
    return np.kron(out, out), np.kron(weight, weight), np.kron(frame, frame)


class Writer:
    """Replaces convolutions of one graph. What several of them need is written once.

    The graph's constants must be folded, so that a bias is a constant.
    """

    def __init__(self, model: Any) -> None:
        self._ops = load_openvino().opset13
        self._bands: dict[tuple[Sizes, ...], list[tuple[Any, Any]]] = {}
        self._written: dict[str, _Pixels] = {}  # by the name of the node that gives it as planes
        of_output, of_weight, of_input = (m.astype(np.float32) for m in transforms())
        self._of_output = self._ops.constant(of_output)
        self._of_input = self._ops.constant(of_input)
        self._of_weight = self._ops.add(of_weight, self._zero(model.get_parameters()[0]))
        self._second = self._ops.constant(np.int32(1))  # the axis of pixels

    def replace(self, convolutions: Sequence[Any]) -> None:
        """Write convolutions, with the bias and the ReLU that follow, in place of what is there.

        Args:
            convolutions: of one weight, none of which needs the output of another: a head's layer
                on all levels. One product takes the tiles of all of them.
        """
        ops = self._ops
        y = self._sums(convolutions)
        stages = _stages(convolutions)
        for stage in stages[1:]:
            bias = _bias(stage[0])
            y = ops.relu(y) if bias is None else ops.add(y, ops.constant(bias.reshape(1, 1, -1)))
        first, total = 0, sum(map(_pixels_of, convolutions))
        for convolution, node in zip(convolutions, stages[-1], strict=True):
            _, outputs, height, width = sizes_of(convolution)
            found = _Pixels(y, first, height * width, total)
            first += found.count
            rows = self._shaped(self._rows(found), -1, height, width, outputs)
            planes = ops.transpose(rows, self._ints(0, 3, 1, 2))
            self._written[planes.get_name()] = found
            old, new = node.output(0), planes.output(0)
            targets = old.get_target_inputs()
            planes.set_friendly_name(node.get_friendly_name())
            new.set_names(old.get_names())
            for target in targets:
                target.replace_source_output(new)

    def _sums(self, convolutions: Sequence[Any]) -> Any:
        """(N, pixels, O): the convolutions alone, one after the other."""
        ops, sizes = self._ops, tuple(map(sizes_of, convolutions))
        channels, outputs, _, _ = sizes[0]
        weight = self._weight(convolutions[0])
        if sizes not in self._bands:
            self._bands[sizes] = [(ops.constant(a), ops.constant(b)) for a, b in bands(sizes)]
        x, parts = self._input(convolutions), []
        for of_tiles, of_pixels in self._bands[sizes]:
            tiles = of_tiles.get_shape()[0] // IN**2
            y = self._shaped(ops.gather(x, of_tiles, self._second), -1, IN**2, tiles * channels)
            y = ops.matmul(self._of_input, y, False, False)
            y = ops.matmul(self._shaped(y, -1, IN**2, tiles, channels), weight, False, False)
            y = self._shaped(y, -1, IN**2, tiles * outputs)
            y = self._shaped(
                ops.matmul(self._of_output, y, False, False), -1, OUT**2 * tiles, outputs
            )
            parts.append(ops.gather(y, of_pixels, self._second))
        return parts[0] if len(parts) == 1 else ops.concat(parts, 1)

    def _input(self, convolutions: Sequence[Any]) -> Any:
        """(N, pixels + 1, C): what the convolutions read, and a pixel of zeros."""
        ops = self._ops
        channels, _, _, _ = sizes_of(convolutions[0])
        known = [self._written.get(c.input_value(0).get_node().get_name()) for c in convolutions]
        whole = _node_of(known)
        parts = [] if whole is None else [whole]
        for convolution, pixels in zip(convolutions, known, strict=True) if whole is None else ():
            if pixels is None:  # OpenVINO leaves out a transposition between these two layouts
                rows = ops.transpose(convolution.input_value(0), self._ints(0, 2, 3, 1))
                parts.append(self._shaped(rows, -1, _pixels_of(convolution), channels))
            else:
                parts.append(self._rows(pixels))
        batch = ops.gather(ops.shape_of(parts[0]), self._ints(0), ops.constant(np.int64(0)))
        shape = ops.concat([batch, self._ints(1, channels)], 0)
        return ops.concat([*parts, ops.broadcast(ops.constant(np.float32(0)), shape)], 1)

    def _weight(self, convolution: Any) -> Any:
        """(36, C, O): the transformed weight."""
        values = convolution.input_value(1).get_node().get_data()  # (O, C, 3, 3)
        outputs, channels, _, _ = values.shape
        flat = np.ascontiguousarray(values.transpose(2, 3, 1, 0)).reshape(KERNEL**2, -1)
        found = self._ops.matmul(self._of_weight, self._ops.constant(flat), False, False)
        return self._shaped(found, IN**2, channels, outputs)

    def _zero(self, parameter: Any) -> Any:
        """A zero that OpenVINO does not know before it has an input.

        What depends on constants alone is computed when a model is compiled, and kept.
        """
        ops = self._ops
        first = ops.gather(self._shaped(parameter, -1), self._ints(0), ops.constant(np.int32(0)))
        return ops.minimum(ops.relu(ops.convert(first, "f32")), ops.constant(np.float32(0)))

    def _rows(self, pixels: _Pixels) -> Any:
        """(N, pixels, C) of one convolution's outputs."""
        if pixels.count == pixels.total:
            return pixels.node
        begin, end = self._ints(pixels.first), self._ints(pixels.first + pixels.count)
        return self._ops.slice(pixels.node, begin, end, self._ints(1), self._ints(1))

    def _shaped(self, x: Any, *sizes: int) -> Any:
        return self._ops.reshape(x, self._ints(*sizes), False)

    def _ints(self, *values: int) -> Any:
        return self._ops.constant(np.array(values, np.int64))


@dataclass(frozen=True)
class _Pixels:
    """Where a convolution's outputs are: some of a node's (N, pixels, O).

    Attributes:
        node: of the graph.
        first: of the convolution's pixels.
        count: of them.
        total: pixels of the node.
    """

    node: Any
    first: int
    count: int
    total: int


def _node_of(pixels: Sequence[_Pixels | None]) -> Any | None:
    """The node that has just these pixels, in order."""
    first, node, total = 0, None, 0
    for found in pixels:
        if found is None or found.first != first or (node is not None and node is not found.node):
            return None
        first, node, total = first + found.count, found.node, found.total
    return node if first == total else None


def bands(sizes: Sequence[Sizes]) -> list[tuple[Indices, Indices]]:
    """What is gathered for each band of tiles: some rows of them, of one convolution or of several.

    Args:
        sizes: of convolutions that have one weight.

    Returns:
        For each band the places of its tiles' values among all pixels, (36 * T,), and the places of
        its pixels in its output tiles, (pixels,). Beyond the borders is the pixel after the last.
    """
    channels, outputs, _, _ = sizes[0]
    base, zeros = 0, sum(height * width for _, _, height, width in sizes)
    rows = list[tuple[Indices, Indices]]()  # of tiles: places (36, tiles); and (2, pixels)
    for _, _, height, width in sizes:
        wide = math.ceil(width / OUT)
        for top in range(0, height, OUT):
            y, x = np.arange(top - 1, top - 1 + IN)[:, None], np.arange(-1, OUT * wide + 1)
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            places = np.where(inside, base + y * width + x, zeros)
            of_tiles = np.stack([places[:, OUT * i : OUT * i + IN] for i in range(wide)], -1)
            y, x = np.divmod(np.arange(min(OUT, height - top) * width), width)
            of_pixels = np.stack([y * OUT + x % OUT, x // OUT])  # in the tile, and the tile
            rows.append((of_tiles.reshape(IN**2, wide), of_pixels))
        base += height * width
    most = max(1, 2 * _VALUES // (IN**2 * (channels + outputs)))
    return [_joined(band) for band in _split(rows, most)]


def _joined(rows: list[tuple[Indices, Indices]]) -> tuple[Indices, Indices]:
    """Rows of tiles as one band: (36 * T,) and (pixels,)."""
    total, before, of_pixels = sum(tiles.shape[1] for tiles, _ in rows), 0, []
    for tiles, (place, tile) in rows:
        of_pixels.append(place * total + before + tile)
        before += tiles.shape[1]
    of_tiles = np.concatenate([tiles for tiles, _ in rows], 1).ravel()
    return of_tiles.astype(np.int32), np.concatenate(of_pixels).astype(np.int32)


def _split(rows: list[tuple[Indices, Indices]], most: int) -> list[list[tuple[Indices, Indices]]]:
    """Rows of tiles in bands of about the same number of tiles, at most `most` where that goes."""
    ends = np.cumsum([of_tiles.shape[1] for of_tiles, _ in rows])
    count = math.ceil(ends[-1] / most)
    of_row = np.minimum((ends - 1) * count // ends[-1], count - 1)
    bands = [[row for row, b in zip(rows, of_row, strict=True) if b == i] for i in range(count)]
    return [band for band in bands if band]


def _pixels_of(convolution: Any) -> int:
    _, _, height, width = sizes_of(convolution)
    return height * width


def _stages(convolutions: Sequence[Any]) -> list[Sequence[Any]]:
    """Convolutions, and their additions of a bias and ReLUs that nothing else stands between.

    What follows must be the same for all of them.
    """
    stages = [convolutions]
    for wanted in ("Add", "Relu"):
        nodes = [_only_reader(node, wanted) for node in stages[-1]]
        if any(node is None for node in nodes):
            continue
        if wanted == "Relu" or _same([_bias(node) for node in nodes]):
            stages.append(nodes)
    return stages


def _same(biases: Sequence[npt.NDArray[np.float32] | None]) -> bool:
    first = biases[0]
    return first is not None and all(b is not None and np.array_equal(b, first) for b in biases)


def _only_reader(node: Any, wanted: str) -> Any | None:
    """What reads a node's output, if it is one node of a type."""
    targets = list(node.output(0).get_target_inputs())
    found = targets[0].get_node()
    return found if len(targets) == 1 and found.get_type_name() == wanted else None


def _bias(node: Any) -> npt.NDArray[np.float32] | None:
    """What an addition adds to each channel of (N, O, H, W); None if it adds something else."""
    shape = node.get_output_partial_shape(0)
    for value in node.input_values():
        constant = value.get_node()
        if constant.get_type_name() == "Constant" and len(shape) == 4:
            values: npt.NDArray[np.float32] = constant.get_data()
            if values.shape in ((1, shape[1].get_length(), 1, 1), (shape[1].get_length(), 1, 1)):
                return values
    return None
