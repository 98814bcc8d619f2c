"""How much each layer's quantization alone moves the raw outputs: the cheap look at where loss is.

A layer is a module; those of the heads run once a level and count once. For each layer a graph in
which it alone is INT8 runs on a few images, and its raw outputs are compared with FP32's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from retinart.calib.observe import as_frames
from retinart.calib.placement import place
from retinart.calib.quantize import quantize
from retinart.calib.resume import Saved
from retinart.engine.common.progress import Progress
from retinart.engine.media.images import read_image
from retinart.engine.model.info import HEADS, ModelInfo
from retinart.engine.runtime.openvino_probe import tensor_probe

Outputs = dict[str, npt.NDArray[np.float32]]


def sensitivity(
    model: Path,
    graph: onnx.ModelProto,
    info: ModelInfo,
    thresholds: dict[str, float],
    weight_bits: int,
    images: Sequence[Path],
    saved: Saved,
) -> dict[str, float]:
    """The error at the raw outputs when one layer alone is INT8, by layer, largest first.

    The error is a noise-to-signal ratio: the root of the mean squared difference over the raw
    outputs' variance, averaged over heads and levels. 0.1 means that a tenth of what the outputs
    say is noise.

    Args:
        model: the FP32 file, and `graph` what is in it.
        thresholds: for every activation that may be quantized.
        weight_bits: of INT8 weights.
        images: a few, that can be read.
        saved: where what was measured is kept.
    """
    layers = place(graph).layers
    frames = [as_frames(info, read_image(path)) for path in images]
    found: dict[str, float] = saved.get("sensitivity") or {}
    left = [layer for layer in layers if layer not in found]
    if left:
        exact = [{n: v.copy() for n, v in o.items()} for o in _outputs(model, frames)]
    progress = Progress()
    for layer in left:
        placement = place(graph, keep_float=frozenset(layers) - {layer})
        with tempfile.TemporaryDirectory(prefix="retinart-") as folder:
            path = Path(folder) / "layer.onnx"
            onnx.save(quantize(graph, placement, thresholds, weight_bits=weight_bits), path)
            errors = [
                noise_to_signal(a, b) for a, b in zip(exact, _outputs(path, frames), strict=True)
            ]
        found[layer] = float(np.mean(errors))
        saved.set("sensitivity", found)
        progress.update(len(found), len(layers), "layers looked at alone")
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def noise_to_signal(exact: Outputs, found: Outputs) -> float:
    """Root of mean squared difference over variance, averaged over the tensors of both."""
    ratios = []
    for name, values in exact.items():
        signal = float(values.var())
        noise = float(np.square(found[name] - values).mean())
        ratios.append(noise / signal if signal > 0 else float(noise > 0))
    return float(np.sqrt(np.mean(ratios)))


def _outputs(model: Path, frames: list[npt.NDArray[np.uint8]]) -> Iterator[Outputs]:
    probe = tensor_probe(model, HEADS)
    for batch in frames:
        yield probe(batch)
