"""The calibration record: the ranges that an INT8 file was made from, and their origin."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from retinart.calib.accuracy import Accuracy
from retinart.calib.histogram import Histogram
from retinart.calib.settings import Quantized, Rounding
from retinart.engine.common.bounded_reading import MIB, read_json
from retinart.engine.common.files import json_text
from retinart.engine.common.typed_json import from_json
from retinart.engine.errors import BadInput
from retinart.engine.model.info import ModelInfo

_AGAIN = "Calibrate on `images`"
_MOST = 1024 * MIB


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord:
    """Ranges, and what they are valid for.

    Attributes:
        network_sha256: hash of the FP32 network's nodes and weights.
        preprocessing_sha256: hash of everything that turns an image into numbers.
        input: height and width of the network's input, or their limits.
        images_sha256: hash of the images' contents, in order.
        images: how many were used.
        num, seed: how many were asked for, and the seed that drew them.
        histograms: of the activations that can be quantized, by tensor.
        peaks: the largest magnitude of every float tensor of the network.
        precision: what the file's numbers are, int8 or fp8.
        method: the method that chose the thresholds.
        weight_bits: bits of the file's weights, 8 or 7.
        rounding: how they were rounded.
        correct_bias: whether biases were corrected.
        thresholds: the magnitude that becomes the largest number, by tensor.
        reads: of each node that reads a rounded tensor: the tensor, and which input it is. Records
            of earlier versions hold none.
        kept_float: layers that stay in float.
        sensitivity: error at the raw outputs when one layer alone is quantized; empty if not
            measured.
        signal_to_noise: of the file's raw outputs in dB, by tensor, such as logits_p3; None
            where nothing differs. Empty if not measured.
        accuracy: AP of the files by precision; empty if not measured.
    """

    network_sha256: str
    preprocessing_sha256: str
    input: str
    images_sha256: str
    images: int
    num: int
    seed: int
    histograms: dict[str, Histogram]
    peaks: dict[str, float]
    method: str
    thresholds: dict[str, float]
    reads: dict[str, tuple[str, int]] = field(default_factory=dict)
    precision: Quantized = "int8"
    weight_bits: int = 8
    rounding: Rounding = "nearest"
    correct_bias: bool = False
    kept_float: tuple[str, ...] = ()
    sensitivity: dict[str, float] = field(default_factory=dict)
    signal_to_noise: dict[str, float | None] = field(default_factory=dict)
    accuracy: dict[str, Accuracy] = field(default_factory=dict)

    SCHEMA: ClassVar[int] = 1
    AGAIN: ClassVar[str] = f"{_AGAIN} to make one"

    def __post_init__(self) -> None:
        if self.weight_bits not in (7, 8) or min(self.images, self.num) < 1:
            raise ValueError(
                f"it is of {self.weight_bits} bits and {self.images} of {self.num} images"
            )
        for numbers in (self.peaks, self.thresholds):
            if not all(0 <= value < math.inf for value in numbers.values()):
                raise ValueError("a magnitude is negative or not finite")
        if not self.histograms.keys() == self.thresholds.keys() <= self.peaks.keys():
            raise ValueError("its histograms, thresholds and peaks are of different tensors")

    def check(self, path: Path, info: ModelInfo, network_sha256: str | None) -> None:
        """Refuse the record for a model that its ranges were not taken from.

        Args:
            path: the record's file, for the message.
            info: the model's metadata.
            network_sha256: the model's hash; None for weights that were trained with the record.

        Raises:
            BadInput: with the reason.
        """
        what = f"the record {path} does not fit {info.name}"
        if network_sha256 not in (None, self.network_sha256):
            why = "it was taken from a network with other weights or layers"
            raise BadInput(what, why=why, fix=_AGAIN)
        if self.input != describe_input(info):
            why = f"its input is {self.input}, and the model's is {describe_input(info)}"
            raise BadInput(what, why=why, fix=_AGAIN)
        if self.preprocessing_sha256 != info.preprocessing_sha256:
            raise BadInput(what, why="images were resized or normalised differently", fix=_AGAIN)

    def to_text(self) -> str:
        """The text of its file, in JSON."""
        content = {"schema": self.SCHEMA, **vars(self)}
        content["accuracy"] = {name: asdict(a) for name, a in self.accuracy.items()}
        content["histograms"] = {n: h.to_dict() for n, h in self.histograms.items()}
        return json_text(content)


def read_record(path: Path) -> CalibrationRecord:
    """Read a record that `retinart calibrate` wrote.

    Raises:
        BadInput: it is missing or damaged, or another version wrote it.
    """
    data = read_json(path, noun="calibration record", most=_MOST, fix=CalibrationRecord.AGAIN)
    return from_json(CalibrationRecord, data, f"the calibration record {path}")


def describe_input(info: ModelInfo) -> str:
    """Height and width of the input for people, such as 608x800."""
    low, high = ("x".join(map(str, size)) for size in (info.min_size, info.max_size))
    return low if low == high else f"{low} to {high}"
