"""One command from an FP32 file to an INT8 file: observe, choose thresholds, place Q/DQ, record."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from retinart.calib.methods import METHODS, Method, threshold
from retinart.calib.observe import choose_images, observe
from retinart.calib.placement import Placement, place
from retinart.calib.quantize import quantize
from retinart.engine.errors import BadInput
from retinart.engine.files import atomic_path, sha256
from retinart.engine.info import METADATA_KEY, ModelInfo, read_info


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """How to calibrate.

    Attributes:
        images: folder, file or glob.
        num, seed: how many of them, and which.
        method: how thresholds are chosen, see `retinart.calib.methods`.
    """

    images: str
    num: int = 200
    seed: int = 0
    method: Method = "percentile"


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """A calibration that succeeded.

    Attributes:
        path: the INT8 file.
        record: the calibration record beside it.
        images: images that were used.
        convolutions: how many became INT8.
        thresholds: the magnitude that becomes 127, by tensor.
    """

    path: Path
    record: Path
    images: int
    convolutions: int
    thresholds: dict[str, float]


def calibrate(model: Path, output: Path, settings: CalibrationSettings) -> CalibrationReport:
    """Write the INT8 form of an exported model, and a record of how it came about.

    Args:
        model: FP32 file of `retinart export`.
        output: where to write; `.json` with the record goes beside it. Neither appears before
            everything has gone well.

    Raises:
        BadInput: the model is not ours or quantized already, or the images cannot be used.
        CheckFailed: an activation is NaN or infinite.
    """
    if output.suffix != ".onnx":
        raise BadInput(f"the output {output} does not end in .onnx", fix="Name it model.int8.onnx")
    if settings.method not in METHODS:
        raise BadInput(
            f"unknown method {settings.method!r}", fix=f"Choose one of: {', '.join(METHODS)}"
        )
    info = read_info(model)
    if info.precision != "fp32":
        raise BadInput(
            f"{model} is {info.precision} already",
            fix="Calibrate the FP32 file that `retinart export` wrote",
        )
    graph = onnx.load(model)
    _check_weights(graph)
    placement = place(graph)
    images = choose_images(settings.images, settings.num, settings.seed)
    provenance = {
        "model_sha256": sha256(model),
        "preprocessing_sha256": info.preprocessing_sha256,
        "images_sha256": _images_hash(images),
        "num": settings.num,
        "seed": settings.seed,
    }
    histograms, used = observe(
        model,
        info,
        list(placement.activations),
        images,
        state=output.with_name(f".{output.stem}.calibrating.json"),
        key=json.dumps(provenance, sort_keys=True),
    )
    provenance |= {"method": settings.method, "images": len(used), "retinart": version("retinart")}
    thresholds = {name: threshold(h, settings.method) for name, h in histograms.items()}
    written = _write(graph, info, placement, thresholds, provenance, output)
    record = output.with_suffix(".json")
    with atomic_path(record) as temporary:
        content = {
            **provenance,
            "tensors": {
                name: {"threshold": thresholds[name], "peak": h.peak, "zeros": h.zeros}
                for name, h in histograms.items()
            },
        }
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return CalibrationReport(
        path=written,
        record=record,
        images=len(used),
        convolutions=len(placement.convolutions),
        thresholds=thresholds,
    )


def _write(
    graph: onnx.ModelProto,
    info: ModelInfo,
    placement: Placement,
    thresholds: dict[str, float],
    provenance: dict[str, Any],
    output: Path,
) -> Path:
    result = quantize(graph, placement, thresholds)
    described = dataclasses.replace(
        info,
        name=output.stem,
        precision="int8",
        provenance={**info.provenance, "calibration": provenance},
    )
    onnx.helper.set_model_props(result, {METADATA_KEY: described.to_json()})
    with atomic_path(output) as temporary:
        temporary.write_bytes(result.SerializeToString(deterministic=True))
    return output


def _check_weights(graph: onnx.ModelProto) -> None:
    for initializer in graph.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT:
            continue
        if not np.isfinite(numpy_helper.to_array(initializer)).all():
            raise BadInput(
                f"the weights {initializer.name} hold NaN or infinite values",
                fix="Train or export the model again",
            )


def _images_hash(images: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in images:
        digest.update(sha256(path).encode())
    return digest.hexdigest()
