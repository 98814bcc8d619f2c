"""The calibration record: the ranges that an INT8 file was made from, and where they came from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from retinart.calib.accuracy import Accuracy
from retinart.calib.histogram import Histogram
from retinart.engine.common.files import atomic_path
from retinart.engine.errors import BadInput
from retinart.engine.model.info import ModelInfo

SCHEMA = 1
_AGAIN = "Calibrate on `images`"


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord:
    """Ranges, and what they are valid for.

    Attributes:
        network_sha256: of the FP32 network's nodes and weights.
        preprocessing_sha256: of all that decides which numbers an image becomes.
        input: height and width of the network's input, or the limits between which they vary.
        images_sha256: of the images' contents, in order.
        images: how many were used.
        num, seed: how many were asked for, and how they were drawn.
        histograms: of the activations that can be quantized, by tensor.
        peaks: the largest magnitude of every float tensor of the network.
        method: that chose the thresholds of the INT8 file.
        weight_bits: of the INT8 file's weights, 8 or 7.
        thresholds: the magnitude that becomes 127, by tensor.
        kept_float: layers that were left in float.
        sensitivity: error at the raw outputs when one layer alone is INT8, where it was measured.
        accuracy: AP of the files, where it was measured.
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
    weight_bits: int = 8
    kept_float: tuple[str, ...] = ()
    sensitivity: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, Accuracy] = field(default_factory=dict)

    def check(self, path: Path, info: ModelInfo, network_sha256: str) -> None:
        """Refuse ranges that were not taken from this network with these inputs.

        Args:
            path: where the record was read from, for the message.
            info: of the model that the ranges are wanted for.
            network_sha256: of that model.

        Raises:
            BadInput: the reason.
        """
        what = f"the record {path} is not of {info.name}"
        if self.network_sha256 != network_sha256:
            why = "it was taken from a network with other weights or layers: ranges would be wrong"
            raise BadInput(what, why=why, fix=_AGAIN)
        if self.input != describe_input(info):
            why = f"its ranges are of input {self.input}, and the model's is {describe_input(info)}"
            raise BadInput(what, why=why, fix=_AGAIN)
        if self.preprocessing_sha256 != info.preprocessing_sha256:
            raise BadInput(what, why="images were resized or normalised otherwise", fix=_AGAIN)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        with atomic_path(path) as temporary:
            content = {"schema": SCHEMA, **vars(self)}
            content["accuracy"] = {name: asdict(a) for name, a in self.accuracy.items()}
            content["histograms"] = {n: h.to_dict() for n, h in self.histograms.items()}
            temporary.write_text(json.dumps(content), encoding="utf-8")


def read_record(path: Path) -> CalibrationRecord:
    """Read a record that `retinart calibrate` wrote.

    Raises:
        BadInput: it is missing, damaged or of another version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        schema = data.pop("schema")
        if schema != SCHEMA:
            raise ValueError(f"its version is {schema}, and {SCHEMA} is known here")
        data["histograms"] = {n: Histogram.from_dict(h) for n, h in data["histograms"].items()}
        data["accuracy"] = {name: Accuracy(**a) for name, a in data["accuracy"].items()}
        data["kept_float"] = tuple(data["kept_float"])
        return CalibrationRecord(**data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadInput(
            f"{path} is not a calibration record", why=why, fix=f"{_AGAIN} to make one"
        ) from error


def describe_input(info: ModelInfo) -> str:
    """Height and width of the input for people, such as 608x800."""
    low, high = ("x".join(map(str, size)) for size in (info.min_size, info.max_size))
    return low if low == high else f"{low} to {high}"
