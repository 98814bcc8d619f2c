"""Round all weights of a graph, some at a time, from what its convolutions see on images."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinart.calib.moments import Convolution, Moments
from retinart.calib.numbers import INT8, Numbers
from retinart.calib.rounding import Rounded, round_weight
from retinart.calib.settings import Rounding
from retinart.engine.common.progress import Progress
from retinart.engine.media.images import Image
from retinart.engine.runtime.openvino_probe import tensor_probe

MOST = 1 << 30  # bytes of products that are summed in one pass over the images
MEAN_IMAGES = 32  # enough for the means that correct biases


def round_weights(
    model: Path,
    convolutions: Sequence[Convolution],
    thresholds: Mapping[str, float],
    images: Sequence[Path],
    read: Callable[[Path], Image],
    *,
    rounding: Rounding,
    bits: int,
    shift: bool,
    numbers: Numbers = INT8,
) -> Iterator[dict[str, Rounded]]:
    """Round weights, as many with each step as fit into `MOST` bytes, and at least one.

    Args:
        model: the FP32 file.
        convolutions: what reads the weights; all that share a weight.
        thresholds: the magnitude that becomes the largest number, by tensor.
        images: to look at.
        read: gives an image as frames (1, H, W, 3) uint8 BGR.
        rounding, bits, shift, numbers: see `round_weight`.
    """
    products = rounding != "nearest"
    by_weight: dict[str, list[Convolution]] = {}
    for convolution in convolutions:
        by_weight.setdefault(convolution.weight, []).append(convolution)
    groups = list(_groups(by_weight, MOST if products else None))
    used = images if products else images[:MEAN_IMAGES]
    progress, done = Progress(), 0
    for names in groups:
        mine = [c for name in names for c in by_weight[name]]
        moments = {
            n: Moments(by_weight[n][0].rows, products=products, numbers=numbers) for n in names
        }
        probe = tensor_probe(model, list(dict.fromkeys(c.tensor for c in mine)))
        for number, path in enumerate(used):
            values = probe(read(path))
            for k, c in enumerate(mine):
                patches = c.patches(values[c.tensor], np.random.default_rng([number, k]))
                moments[c.weight].add(c.node, patches, numbers.step(thresholds[c.tensor]))
            done += 1
            progress.update(done, len(groups) * len(used), "images for the weights")
        found = {}
        for name in names:
            first = by_weight[name][0]
            shape = (first.rows.shape[0] * first.rows.shape[1], -1, *first.kernel)
            found[name] = round_weight(
                moments.pop(name), shape, rounding, bits, shift=shift, numbers=numbers
            )
        yield found


def _groups(
    by_weight: Mapping[str, Sequence[Convolution]], most: int | None
) -> Iterator[Sequence[str]]:
    """Names of weights whose products fit into `most` bytes; None for no limit."""
    group, size = list[str](), 0
    for name, readers in by_weight.items():
        groups, _, values = readers[0].rows.shape
        mine = 4 * groups * values**2
        if most is not None and group and size + mine > most:
            yield group
            group, size = [], 0
        group, size = [*group, name], size + mine
    if group:
        yield group


def to_plain(found: Mapping[str, Rounded]) -> dict[str, Any]:
    """JSON's types."""
    return {
        name: {
            "shape": list(rounded.encoded.shape),
            "encoded": base64.b64encode(zlib.compress(rounded.encoded.tobytes(), 1)).decode(),
            "scales": rounded.scales.tolist(),
            "shifts": {node: shift.tolist() for node, shift in rounded.shifts.items()},
        }
        for name, rounded in found.items()
    }


def from_plain(saved: Mapping[str, Any], numbers: Numbers) -> dict[str, Rounded]:
    """What `to_plain` gave of these numbers."""
    return {
        name: Rounded(
            encoded=np.frombuffer(
                zlib.decompress(base64.b64decode(entry["encoded"])), numbers.dtype
            ).reshape(entry["shape"]),
            scales=np.array(entry["scales"], np.float32),
            shifts={n: np.array(s, np.float32) for n, s in entry["shifts"].items()},
        )
        for name, entry in saved.items()
    }
