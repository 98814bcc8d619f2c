"""One command from an FP32 file to an INT8 file: ranges, thresholds, a budget, Q/DQ, a record."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from retinart.calib.accuracy import Accuracy, Judge
from retinart.calib.budget import fewest_in_float
from retinart.calib.fp16 import to_fp16
from retinart.calib.histogram import Histogram
from retinart.calib.methods import threshold
from retinart.calib.network import network_sha256
from retinart.calib.observe import PEAK_IMAGES, choose_images, observe, observe_peaks
from retinart.calib.placement import place
from retinart.calib.probed import probed
from retinart.calib.quantize import quantize
from retinart.calib.record import CalibrationRecord, describe_input, read_record
from retinart.calib.report import write_report
from retinart.calib.resume import Saved
from retinart.calib.sensitivity import sensitivity
from retinart.calib.settings import CalibrationSettings, Method
from retinart.engine.common.files import atomic_path, sha256
from retinart.engine.common.html_page import load_matplotlib
from retinart.engine.errors import BadInput
from retinart.engine.model.info import METADATA_KEY, ModelInfo, read_info
from retinart.engine.runtime.options import RuntimeChoice

LOOKED_AT = 4  # images on which each layer is quantized alone


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """A calibration that succeeded.

    Attributes:
        path: the INT8 file.
        record: what it was made from; `record_path` is its file.
        convolutions: how many became INT8.
    """

    path: Path
    record: CalibrationRecord
    record_path: Path
    convolutions: int


def calibrate(model: Path, output: Path, settings: CalibrationSettings) -> CalibrationReport:
    """Write the INT8 form of an exported model, and a record of how it came about.

    Args:
        model: FP32 file of `retinart export`.
        output: where to write; `.json` with the record goes beside it. Neither appears before
            everything has gone well.

    Raises:
        BadInput: the model is not ours or quantized already, or the images cannot be used.
        CheckFailed: an activation is NaN or infinite, or the budget cannot be kept.
    """
    if output.suffix != ".onnx":
        raise BadInput(f"the output {output} does not end in .onnx", fix="Name it model.int8.onnx")
    info, annotated = read_info(model), settings.annotated
    if info.precision != "fp32":
        raise BadInput(
            f"{model} is {info.precision} already",
            fix="Calibrate the FP32 file that `retinart export` wrote",
        )
    if settings.report is not None:
        load_matplotlib()  # before the work: without it there is no report
    graph = onnx.load(model)
    _check_weights(graph)
    layers = place(graph).layers
    kept = _matching(settings.keep_float, layers)
    images = []
    if settings.images is not None:
        images = choose_images(settings.images, settings.num, settings.seed)
    saved = Saved(
        output.with_name(f".{output.stem}.calibrating.json"),
        key=_key(model, info, images, settings),
    )
    record, images = _ranges(model, info, graph, images, settings, saved)
    thresholds = record.thresholds
    judge = Judge(annotated, saved)
    alone: dict[str, float] = {}
    if settings.max_drop is not None or settings.report is not None:
        alone = sensitivity(
            model, graph, info, thresholds, settings.weight_bits, images[:LOOKED_AT], saved
        )

    def int8(keep_float: Sequence[str]) -> onnx.ModelProto:
        placement = place(graph, keep_float=frozenset(keep_float))
        return quantize(graph, placement, thresholds, weight_bits=settings.weight_bits)

    accuracy: dict[str, Accuracy] = {}
    if judge.able:
        accuracy["fp32"] = judge.file("FP32", model)
    if settings.max_drop is not None:
        ranked = [layer for layer in alone if layer not in kept]

        def drop(more: tuple[str, ...]) -> float:
            found = judge.graph(_name((*kept, *more)), int8((*kept, *more)))
            return accuracy["fp32"].ap - found.ap

        kept = (*kept, *fewest_in_float(ranked, drop, settings.max_drop).kept)
    result = int8(kept)
    if judge.able:
        if settings.report is not None:
            half, _ = to_fp16(graph, record.peaks)
            accuracy["fp16"] = judge.graph("FP16", half, _for_fp16())
        accuracy["int8"] = judge.graph(_name(kept), result)
    record = dataclasses.replace(
        record,
        kept_float=tuple(layer for layer in layers if layer in kept),
        sensitivity=alone,
        accuracy=accuracy,
    )
    placement = place(graph, keep_float=frozenset(kept))
    if settings.report is not None:
        write_report(settings.report, info.name, record)
    _write(result, info, record, output)
    saved.remove()
    return CalibrationReport(
        path=output,
        record=record,
        record_path=output.with_suffix(".json"),
        convolutions=len(placement.convolutions),
    )


def _ranges(
    model: Path,
    info: ModelInfo,
    graph: onnx.ModelProto,
    images: list[Path],
    settings: CalibrationSettings,
    saved: Saved,
) -> tuple[CalibrationRecord, list[Path]]:
    """A record with the ranges, observed or read, and the images that can be read."""
    network = network_sha256(graph)
    if settings.record is not None:
        record = read_record(settings.record)
        record.check(settings.record, info, network)
        thresholds = _thresholds(record.histograms, settings.method)
        record = dataclasses.replace(
            record,
            method=settings.method,
            weight_bits=settings.weight_bits,
            thresholds=thresholds,
        )
        return record, images
    histograms, used = observe(model, info, list(place(graph).activations), images, saved)
    peaks = saved.get("peaks")
    if peaks is None:
        peaks = observe_peaks(model, info, graph, used[:PEAK_IMAGES])
        saved.set("peaks", peaks)
    seen = {name: max(peaks.get(name, 0.0), h.peak) for name, h in histograms.items()}
    record = CalibrationRecord(
        network_sha256=network,
        preprocessing_sha256=info.preprocessing_sha256,
        input=describe_input(info),
        images_sha256=_images_hash(images),
        images=len(used),
        num=settings.num,
        seed=settings.seed,
        histograms=histograms,
        peaks={**peaks, **seen},
        method=settings.method,
        weight_bits=settings.weight_bits,
        thresholds=_thresholds(histograms, settings.method),
    )
    return record, used


def _thresholds(histograms: dict[str, Histogram], method: Method) -> dict[str, float]:
    return {name: threshold(h, method) for name, h in histograms.items()}


def _write(
    result: onnx.ModelProto, info: ModelInfo, record: CalibrationRecord, output: Path
) -> None:
    """The INT8 file and its record; the file tells what it was made from."""
    provenance = {
        name: getattr(record, name)
        for name in (
            "network_sha256", "preprocessing_sha256", "images_sha256", "images", "num", "seed",
            "method", "weight_bits", "kept_float",
        )
    }  # fmt: skip
    described = dataclasses.replace(
        info,
        name=output.stem,
        precision="int8",
        provenance={
            **info.provenance,
            "calibration": {**provenance, "retinart": version("retinart")},
        },
    )
    described = probed(result, described)
    onnx.helper.set_model_props(result, {METADATA_KEY: described.to_json()})
    with atomic_path(output) as temporary:
        temporary.write_bytes(result.SerializeToString(deterministic=True))
        record.write(output.with_suffix(".json"))


def _name(kept: Sequence[str]) -> str:
    return f"INT8 with {len(kept)} layers in float ({', '.join(sorted(kept))})" if kept else "INT8"


def _for_fp16() -> RuntimeChoice:
    """ONNX Runtime rounds activations to FP16 as a GPU does; OpenVINO on a CPU, weights only."""
    return "onnxruntime" if importlib.util.find_spec("onnxruntime") else "auto"


def _matching(patterns: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """The layers that patterns name; a pattern that names none is an error."""
    found = []
    for pattern in patterns:
        named = fnmatch.filter(layers, pattern)
        if not named:
            raise BadInput(
                f"no layer is called {pattern!r}",
                why=f"the layers are {layers[0]}, {layers[1]}, ... {layers[-1]}",
                fix="Patterns are as in a shell: backbone.layer1.*",
            )
        found += named
    return tuple(dict.fromkeys(found))


def _check_weights(graph: onnx.ModelProto) -> None:
    for initializer in graph.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT:
            continue
        if not np.isfinite(numpy_helper.to_array(initializer)).all():
            raise BadInput(
                f"the weights {initializer.name} hold NaN or infinite values",
                fix="Train or export the model again",
            )


def _key(model: Path, info: ModelInfo, images: list[Path], settings: CalibrationSettings) -> str:
    """Identifies a job: the same files and settings, wherever they lie."""
    annotations = settings.annotations and sha256(settings.annotations)
    content = [sha256(model), info.preprocessing_sha256, _images_hash(images), settings.method]
    return json.dumps([*content, annotations, settings.weight_bits])


def _images_hash(images: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in images:
        digest.update(sha256(path).encode())
    return digest.hexdigest()
