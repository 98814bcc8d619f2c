"""From a file to the same file with its float part in FP16."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import onnx

from retinart.calib.fp16 import to_fp16
from retinart.calib.network import network_sha256
from retinart.calib.observe import choose_images, observe_peaks
from retinart.calib.record import read_record
from retinart.calib.self_test import with_self_test
from retinart.calib.settings import CONVERSION_IMAGES, ConvertSettings
from retinart.engine.common.files import atomic_path, sha256
from retinart.engine.errors import BadInput
from retinart.engine.model.info import ModelInfo, Precision, read_model
from retinart.engine.model.onnx_file import check_onnx_output, write_onnx
from retinart.engine.runtime.native_errors import explained

_CONVERTED: dict[Precision, Precision] = {
    "fp32": "fp16",
    "int8": "int8+fp16",
    "fp8": "fp8+fp16",
}


@dataclass(frozen=True, kw_only=True)
class ConvertReport:
    """A conversion that succeeded.

    Attributes:
        path: the file.
        source: where the ranges came from, for people; "" if there were none.
        kept: the largest magnitude of each tensor that stays FP32 because it would overflow.
    """

    path: Path
    source: str
    kept: dict[str, float]


def convert(model: Path, output: Path, settings: ConvertSettings) -> ConvertReport:
    """Write a model with its network's float part in FP16.

    Normalisation, decoding and NMS stay FP32, and so do tensors whose ranges would overflow.

    Args:
        model: a file of `retinart export` or `retinart calibrate`.
        output: where to write; it appears only when everything has gone well.

    Raises:
        BadInput: the model is not ours or FP16 already, or the ranges belong to another model.
    """
    check_onnx_output(output, "model.fp16.onnx")
    with explained("Conversion", model, "use"):
        return _convert(model, output, settings)


def _convert(model: Path, output: Path, settings: ConvertSettings) -> ConvertReport:
    info, data = read_model(model)
    if info.precision not in _CONVERTED:
        raise BadInput(f"{model} is {info.precision} already", fix="Convert the file it came from")
    graph = onnx.ModelProto.FromString(data)
    peaks, source = _peaks(model, info, graph, settings)
    result, kept = to_fp16(graph, peaks)
    described = dataclasses.replace(
        info,
        name=output.stem,
        precision=_CONVERTED[info.precision],
        provenance={
            **info.provenance,
            "fp16": {"model_sha256": sha256(model), "ranges": source, "kept_fp32": kept},
        },
    )
    with atomic_path(output) as temporary:
        write_onnx(result, with_self_test(result, described), temporary)
    return ConvertReport(path=output, source=source, kept=kept)


def _peaks(
    model: Path, info: ModelInfo, graph: onnx.ModelProto, settings: ConvertSettings
) -> tuple[dict[str, float], str]:
    """Largest magnitudes by tensor, and where they come from."""
    if settings.images is not None:
        images = choose_images(
            settings.images,
            settings.num,
            settings.seed,
            CONVERSION_IMAGES,
            listed_in=settings.listed_in,
        )
        return observe_peaks(model, info, graph, images), f"{len(images)} images"
    path = settings.record or model.with_suffix(".json")
    if settings.record is None and not path.is_file():
        return {}, ""
    record = read_record(path)
    record.check(path, info, _source_network(info, graph))
    return record.peaks, f"{path.name}, {record.images} images"


def _source_network(info: ModelInfo, graph: onnx.ModelProto) -> str:
    """Hash of the FP32 network that a file comes from; an INT8 file's metadata hold it."""
    calibration = info.provenance.get("calibration", {})
    return str(calibration.get("network_sha256") or network_sha256(graph))
