"""How much of the machine's peak a model reaches: the work of its convolutions over their time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks.timing.peaks import Peaks
from retinart.benchmarks.timing.results import ModelTimes
from retinart.engine.common.files import sha256
from retinart.engine.model.info import CANDIDATES, INPUT
from retinart.engine.runtime.openvino_api import find_tensors, load_openvino
from retinart.engine.tensorrt.engine_file import is_engine, read_engine_info

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the convolutions of a graph do for one image.

    Attributes:
        macs: multiply-accumulates.
        values: numbers that the convolutions read and write, weights included.
    """

    macs: int
    values: int


def count_work(model: Path, size: tuple[int, int]) -> Work:
    """Count the work of a file's convolutions, from the input to the candidates.

    Args:
        model: the ONNX file.
        size: height and width of the input.
    """
    openvino = load_openvino()
    whole = openvino.Core().read_model(model)
    network = openvino.Model(find_tensors(whole, CANDIDATES), whole.get_parameters())
    network.reshape({INPUT: [1, *size, 3]})
    macs = values = 0
    for op in network.get_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            image, weights, out = (
                list(port.get_shape())
                for port in (op.input_value(0), op.input_value(1), op.output(0))
            )
            macs += int(np.prod(out) * np.prod(weights[-3:]))  # channels of a group, kernel
            values += int(np.prod(image) + np.prod(weights) + np.prod(out))
    return Work(macs=macs, values=values)


def count_for_image(path: Path, sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """`gmac` and `gvalues` of `ModelTimes`; nothing for an engine without its ONNX file beside it.

    Args:
        path: an ONNX file or an engine.
        sizes: the input's (height, width) for each image.
    """
    if is_engine(path):
        onnx = path.with_suffix(".onnx")
        if not onnx.is_file() or sha256(onnx) != read_engine_info(path).onnx_sha256:
            return {}
        path = onnx
    work = [(count_work(path, size), n / len(sizes)) for size, n in Counter(sizes).items()]
    return {
        "gmac": sum(w.macs * share for w, share in work) / 1e9,
        "gvalues": sum(w.values * share for w, share in work) / 1e9,
    }


def with_shares(row: ModelTimes, peaks: Peaks | None) -> ModelTimes:
    """A row with its shares of the arithmetic's peak, and of memory's where that was measured."""
    if peaks is None or row.gmac is None or row.gvalues is None:
        return row
    seconds = row.ms["infer"].p50 / 1000 / row.streams
    share = 2 * row.gmac / seconds / peaks.of(row.precision)
    if peaks.bandwidth is None:
        return replace(row, share_of_peak=share)
    moved = row.gvalues * number_bytes(row.precision) / seconds
    return replace(row, share_of_peak=share, share_of_bandwidth=moved / peaks.bandwidth)


def number_bytes(precision: str) -> int:
    """The bytes of a number in a network of this precision."""
    return _BYTES[precision.partition("+")[0].removesuffix("-direct")]
