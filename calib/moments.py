"""What the inputs of convolutions are like: sums over patches, from which rounding is judged.

Let x be the K values under a kernel, q(x) the same in INT8 or FP8, and y = W x. What
other weights change in the squared error at the outputs depends on the sums of q(x) q(x)', y q(x)',
q(x) and y alone. So no patch is kept, and memory does not grow with the number of images.

G  groups of a convolution     O  its outputs in a group     K  values under a kernel in a group
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from retinart.calib.network import network_nodes
from retinart.calib.numbers import INT8, Floats, Numbers

POSITIONS = 256  # of a feature map that are drawn in each image


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """A convolution of the graph.

    Attributes:
        node, tensor, weight, bias: names of the node and of what it reads; `bias` may be "".
        rows: (G, O, K) the weights.
        kernel, strides, dilations: height and width.
        pads: top, left, bottom, right.
    """

    node: str
    tensor: str
    weight: str
    bias: str
    rows: Floats
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    def patches(self, values: Floats, rng: np.random.Generator) -> Floats:
        """(G, P, K) the values under the kernel at P places of the output, drawn at random.

        Args:
            values: (1, C, H, W), what the convolution reads.
            rng: draws the places.
        """
        top, left, bottom, right = self.pads
        padded = np.pad(values[0], ((0, 0), (top, bottom), (left, right)))
        height, width = (
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, dilation, kernel, stride in zip(
                padded.shape[1:], self.dilations, self.kernel, self.strides, strict=True
            )
        )
        places = np.arange(height * width)
        if len(places) > POSITIONS:
            places = rng.choice(places, POSITIONS, replace=False)
        row, column = (
            x[:, None] * s for x, s in zip(np.divmod(places, width), self.strides, strict=True)
        )
        rows = row + self.dilations[0] * np.arange(self.kernel[0])  # (P, kh)
        columns = column + self.dilations[1] * np.arange(self.kernel[1])  # (P, kw)
        found = padded[:, rows[:, :, None], columns[:, None, :]]  # (C, P, kh, kw)
        groups, size = len(self.rows), self.rows.shape[2]
        found = found.reshape(groups, -1, len(places), self.kernel[0] * self.kernel[1])
        return found.transpose(0, 2, 1, 3).reshape(groups, len(places), size)


def convolutions(model: onnx.ModelProto, names: Collection[str]) -> Iterator[Convolution]:
    """The convolutions of these names, in the graph's order."""
    constants = {i.name: i for i in model.graph.initializer}
    for node in network_nodes(model):
        if node.name in names:
            given: dict[str, Any] = {a.name: tuple(a.ints) or a.i for a in node.attribute}
            weights = numpy_helper.to_array(constants[node.input[1]]).astype(np.float32)
            groups = given.get("group", 1)
            yield Convolution(
                node=node.name,
                tensor=node.input[0],
                weight=node.input[1],
                bias=node.input[2] if len(node.input) > 2 else "",
                rows=weights.reshape(groups, len(weights) // groups, -1),
                kernel=weights.shape[2:],
                strides=given.get("strides", (1, 1)),
                dilations=given.get("dilations", (1, 1)),
                pads=given.get("pads", (0, 0, 0, 0)),
            )


class Means:
    """Sums of one convolution.

    Attributes:
        count: patches.
        inputs: (G, K) sum of q(x).
        outputs: (G, O) sum of y.
    """

    def __init__(self) -> None:
        self.count = 0
        self.inputs: npt.NDArray[np.float64] = np.zeros(())
        self.outputs: npt.NDArray[np.float64] = np.zeros(())


class Moments:
    """Sums of all convolutions that share one weight, as a head's convolutions at five levels do.

    Args:
        rows: (G, O, K) the weight.
        products: also sum products, in G K K numbers.
        numbers: what q rounds to.

    Attributes:
        means: by the name of the node.
        gram: (G, K, K) sum of q(x) q(x)', from the mean of each node.
        cross: (G, O, K) sum of y q(x)', likewise.
    """

    def __init__(self, rows: Floats, *, products: bool, numbers: Numbers = INT8) -> None:
        groups, outputs, size = rows.shape
        self.rows = rows
        self.means: dict[str, Means] = {}
        self._products, self._numbers = products, numbers
        kept = size if products else 0
        self._gram: Floats = np.zeros((groups, kept, kept), np.float32)
        self._cross: Floats = np.zeros((groups, outputs, kept), np.float32)

    def add(self, node: str, patches: Floats, step: float) -> None:
        """Count patches (G, P, K) of a node, whose numbers have this step."""
        encoded = self._numbers.encode(patches / np.float32(step))
        quantized = encoded.astype(np.float32) * np.float32(step)
        outputs = patches @ self.rows.transpose(0, 2, 1)  # (G, P, O)
        means = self.means.setdefault(node, Means())
        means.count += patches.shape[1]
        means.inputs = means.inputs + quantized.sum(axis=1, dtype=np.float64)
        means.outputs = means.outputs + outputs.sum(axis=1, dtype=np.float64)
        if self._products:
            self._gram += quantized.transpose(0, 2, 1) @ quantized
            self._cross += outputs.transpose(0, 2, 1) @ quantized

    def products(self) -> tuple[Floats, Floats]:
        """`gram` and `cross`; this ends the counting, for it changes them in place."""
        for means in self.means.values():
            inputs = (means.inputs / means.count).astype(np.float32)
            summed = means.inputs.astype(np.float32)
            self._gram -= summed[:, :, None] * inputs[:, None, :]
            self._cross -= means.outputs.astype(np.float32)[:, :, None] * inputs[:, None, :]
        return self._gram, self._cross
