"""How much each layer's quantization alone moves the raw outputs: a cheap look at where loss is.

A layer is a module. The heads run once a level, and each of their layers counts once. For each
layer a graph in which it alone is INT8 runs on a few images, and its raw outputs are compared with
FP32's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from retinart.calib.network import as_file
from retinart.engine.media.images import Image
from retinart.engine.model.info import HEADS
from retinart.engine.runtime.openvino_probe import tensor_probe

Outputs = dict[str, npt.NDArray[np.float32]]


def sensitivity(
    model: Path,
    layers: Sequence[str],
    alone: Callable[[str], onnx.ModelProto],
    batches: Sequence[Image],
) -> Iterator[tuple[str, float]]:
    """Each layer with the error at the raw outputs when it alone is INT8.

    The error is a noise-to-signal ratio: the root of the mean squared difference over the raw
    outputs' variance, averaged over heads and levels. At 0.1 a tenth of the outputs is noise.

    Args:
        model: the FP32 file.
        layers: in the order in which they are looked at.
        alone: makes the graph in which a layer alone is INT8.
        batches: frames (N, H, W, 3) uint8 BGR, a few.
    """
    exact = [{n: v.copy() for n, v in o.items()} for o in _outputs(model, batches)]
    for layer in layers:
        with as_file(alone(layer)) as path:
            found = _outputs(path, batches)
            errors = [noise_to_signal(a, b) for a, b in zip(exact, found, strict=True)]
        yield layer, float(np.mean(errors))


def noise_to_signal(exact: Outputs, found: Outputs) -> float:
    """Root of mean squared difference over variance, averaged over the tensors of both."""
    ratios = []
    for name, values in exact.items():
        signal = float(values.var())
        noise = float(np.square(found[name] - values).mean())
        ratios.append(noise / signal if signal > 0 else float(noise > 0))
    return float(np.sqrt(np.mean(ratios)))


def signal_to_noise(
    model: Path, quantized: onnx.ModelProto | Path, batches: Sequence[Image]
) -> dict[str, float | None]:
    """The signal to noise in dB of each raw output, by tensor; None where nothing differs.

    Ten times the decimal logarithm of the variance of FP32's values over the mean squared
    difference, both over all batches.

    Args:
        model: the FP32 file.
        quantized: the graph in INT8, or a file of it that OpenVINO reads.
        batches: frames (N, H, W, 3) uint8 BGR, a few.
    """
    exact = [{n: v.copy() for n, v in o.items()} for o in _outputs(model, batches)]
    noise = dict.fromkeys(HEADS, 0.0)
    source = nullcontext(quantized) if isinstance(quantized, Path) else as_file(quantized)
    with source as path:
        for one, found in zip(exact, _outputs(path, batches), strict=True):
            for name, values in one.items():
                noise[name] += float(np.square(found[name] - values, dtype=np.float64).sum())
    signal = {}
    for name in HEADS:
        values = np.concatenate([one[name].ravel() for one in exact])
        signal[name] = float(values.var(dtype=np.float64)) * values.size
    return {
        n: 10 * math.log10(signal[n] / noise[n]) if noise[n] > 0 and signal[n] > 0 else None
        for n in HEADS
    }


def _outputs(model: Path, batches: Sequence[Image]) -> Iterator[Outputs]:
    probe = tensor_probe(model, HEADS)
    return (probe(frames) for frames in batches)
