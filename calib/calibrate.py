"""One command from an FP32 file to an INT8 or FP8 file: ranges, thresholds, a budget, a record."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx

from retinart.calib.accuracy import Accuracy
from retinart.calib.budget import fewest_in_float
from retinart.calib.calibration import Calibration
from retinart.calib.fp16 import to_fp16
from retinart.calib.placement import GROUPED, Placement
from retinart.calib.record import CalibrationRecord
from retinart.calib.report import write_report
from retinart.calib.self_test import with_self_test
from retinart.calib.settings import CalibrationSettings
from retinart.engine.common.files import atomic_pair
from retinart.engine.common.html_page import load_matplotlib
from retinart.engine.common.wording import counted
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.evaluate import check_reference
from retinart.engine.model.info import ModelInfo
from retinart.engine.model.onnx_file import check_onnx_output, write_onnx
from retinart.engine.runtime.native_errors import explained
from retinart.engine.runtime.options import RuntimeChoice

_PROVENANCE = (
    "network_sha256", "preprocessing_sha256", "images_sha256", "images", "num", "seed",
    "precision", "method", "weight_bits", "rounding", "correct_bias", "kept_float",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """A calibration that succeeded.

    Attributes:
        path: the INT8 file.
        record: what it was made from; `record_path` is its file.
        convolutions: how many became INT8, or FP8.
    """

    path: Path
    record: CalibrationRecord
    record_path: Path
    convolutions: int


def calibrate(model: Path, output: Path, settings: CalibrationSettings) -> CalibrationReport:
    """Write the INT8 or FP8 form of an exported model, and a record of how it came about.

    Args:
        model: FP32 file of `retinart export`.
        output: where to write; the record goes beside it as `.json`. Both appear only when
            everything has gone well.

    Raises:
        BadInput: the model is not ours or quantized already, or the images cannot be used.
        CheckFailed: an activation is NaN or infinite, or the budget cannot be kept.
    """
    check_onnx_output(output, f"model.{settings.precision}.onnx")
    if settings.report is not None:
        load_matplotlib()  # fails now rather than after the work
    with explained("Calibration", model, "use"):
        return _calibrate(model, output, settings)


def _calibrate(model: Path, output: Path, settings: CalibrationSettings) -> CalibrationReport:
    job = Calibration(model, output, settings)
    layers = job.placement.layers
    kept = _matching(settings.keep_float, job.placement)
    record = job.record
    if settings.tuned:
        kept = tuple(dict.fromkeys((*kept, *record.kept_float)))
    alone: dict[str, float] = {}
    if settings.max_drop is not None or settings.report is not None:
        alone = job.sensitivity()
    accuracy: dict[str, Accuracy] = {}
    if settings.annotations is not None:
        accuracy["fp32"] = job.accuracy("FP32", lambda: job.graph, "fp32")
    if settings.max_drop is not None:
        check_reference(str(model), accuracy["fp32"].ap)
        ranked = [layer for layer in alone if layer not in kept]

        def drop(more: tuple[str, ...]) -> float:
            change = _quantized_accuracy(job, (*kept, *more)).change
            assert change is not None
            return change.loss(settings.undecided)

        kept = (*kept, *fewest_in_float(ranked, drop, settings.max_drop))
    if settings.annotations is not None:
        if settings.report is not None:
            accuracy["fp16"] = job.accuracy(
                "FP16", lambda: to_fp16(job.graph, record.peaks)[0], "fp16", _rounding_as_a_gpu()
            )
        accuracy[settings.precision] = _quantized_accuracy(job, kept)
    result = job.quantized(kept)
    record = dataclasses.replace(
        record,
        kept_float=tuple(layer for layer in layers if layer in kept),
        reads={r.node: (r.tensor, r.position) for r in job.placement.without(kept).readers},
        sensitivity=alone,
        signal_to_noise=job.signal_to_noise(result),
        accuracy=accuracy,
    )
    if settings.report is not None:
        write_report(settings.report, job.info.name, record)
    _write(result, job.info, record, output)
    job.finish()
    return CalibrationReport(
        path=output,
        record=record,
        record_path=output.with_suffix(".json"),
        convolutions=len(job.placement.without(kept).convolutions),
    )


def _quantized_accuracy(job: Calibration, kept: Sequence[str]) -> Accuracy:
    precision = job.settings.precision
    name = precision.upper()
    if kept:
        name += f" with {counted(len(kept), 'layer')} in float ({', '.join(sorted(kept))})"
    runtime: RuntimeChoice = "auto" if precision == "int8" else _rounding_as_a_gpu()
    return job.accuracy(name, lambda: job.quantized(kept), precision, runtime)


def _write(
    result: onnx.ModelProto, info: ModelInfo, record: CalibrationRecord, output: Path
) -> None:
    """The file and its record; the file's metadata tell what it was made from."""
    calibration = {name: getattr(record, name) for name in _PROVENANCE}
    described = dataclasses.replace(
        info,
        name=output.stem,
        precision=record.precision,
        provenance={
            **info.provenance,
            "calibration": {**calibration, "retinart": version("retinart")},
        },
    )
    with atomic_pair(output, output.with_suffix(".json")) as (model, beside):
        write_onnx(result, with_self_test(result, described), model)
        beside.write_text(record.to_text(), encoding="utf-8")


def _rounding_as_a_gpu() -> RuntimeChoice:
    """ONNX Runtime rounds to FP16 and FP8 where the file says; OpenVINO may compute in FP32."""
    return "onnxruntime" if importlib.util.find_spec("onnxruntime") else "auto"


def _matching(patterns: Sequence[str], placement: Placement) -> tuple[str, ...]:
    """The layers that patterns name. Raises BadInput for a pattern that names none."""
    found, layers = list[str](), placement.layers
    for pattern in patterns:
        named = placement.matching(pattern)
        if not named:
            raise BadInput(
                f"no layer is called {pattern!r}",
                why=f"the layers are {layers[0]}, {layers[1]}, ... {layers[-1]}",
                fix=f"Write patterns as in a shell: backbone.layer1.*; or {GROUPED}, where a "
                "convolution has groups",
            )
        found += named
    return tuple(dict.fromkeys(found))
