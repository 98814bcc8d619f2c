"""One calibration: a graph, where Q/DQ pairs go in it, its images, and what is known so far."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from retinart.calib.accuracy import Accuracy, measure
from retinart.calib.histogram import Histogram
from retinart.calib.methods import threshold
from retinart.calib.moments import convolutions
from retinart.calib.network import as_file, network_sha256
from retinart.calib.numbers import NUMBERS
from retinart.calib.observe import Observation, as_frames, choose_images, observe
from retinart.calib.placement import place
from retinart.calib.quantize import quantize
from retinart.calib.record import CalibrationRecord, describe_input, read_record
from retinart.calib.resume import Saved
from retinart.calib.round_weights import from_plain as from_saved
from retinart.calib.round_weights import round_weights, to_plain
from retinart.calib.rounding import Rounded
from retinart.calib.sensitivity import sensitivity, signal_to_noise
from retinart.calib.settings import CalibrationSettings
from retinart.engine.common.files import sha256
from retinart.engine.common.progress import Progress
from retinart.engine.common.typed_json import from_plain
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.annotation_files import annotations_sha256
from retinart.engine.evaluation.coco import CocoDataset
from retinart.engine.evaluation.evaluate import check_evaluation
from retinart.engine.evaluation.problems import Problems
from retinart.engine.evaluation.resample import Matches
from retinart.engine.media.images import Image, read_image
from retinart.engine.model.info import ModelInfo, Precision, read_model
from retinart.engine.runtime.options import RuntimeChoice

SAVE_EVERY = 20  # images between two saved states
LOOKED_AT = 4  # images on which each layer is quantized alone


class Calibration:
    """What the steps of a calibration share, each thing made once.

    Every result is saved in a hidden file beside the output as it comes, so that a job that was
    stopped goes on. The steps themselves return plain values and do not know of that file.

    Args:
        model: FP32 file of `retinart export`.
        output: the INT8 file to be; only its name is used here.
        settings: what to do.

    Attributes:
        model, info, graph: the file, its metadata and its content.
        placement: where Q/DQ pairs go when no layer stays in float.
        images: the calibration images.

    Raises:
        BadInput: the model cannot be calibrated, or the images cannot be used.
    """

    def __init__(self, model: Path, output: Path, settings: CalibrationSettings) -> None:
        self.model, self.settings = model, settings
        self._numbers = NUMBERS[settings.precision]
        self.info: ModelInfo
        self.info, data = read_model(model)
        self._annotated = settings.annotated
        dataset: CocoDataset | None = None
        if self._annotated is not None:
            dataset, lines = check_evaluation(self.info.classes, *self._annotated)
            for line in lines:
                Progress().line(line)
        if self.info.precision != "fp32":
            raise BadInput(
                f"{model} is {self.info.precision} already",
                fix="Calibrate the FP32 file that `retinart export` wrote",
            )
        self.graph: onnx.ModelProto = onnx.ModelProto.FromString(data)
        _check_weights(self.graph)
        self.placement = place(self.graph)
        self.images: list[Path] = []
        if settings.images is not None:
            self.images = choose_images(
                settings.images, settings.num, settings.seed, listed_in=settings.listed_in
            )
        if dataset is not None:
            _say_shared(self.images, dataset)
        self._images_sha256 = _hash_of(self.images)
        self._changed = Problems()  # what was changed of images as they were read
        self._fp32: Matches | None = None
        self._decoded: dict[Path, Image] = {}  # the images that several steps look at
        self._saved = Saved(output.with_name(f".{output.stem}.calibrating.json"), key=self._key())

    @cached_property
    def record(self) -> CalibrationRecord:
        """The ranges and thresholds, observed on the images or taken from an earlier record.

        Raises:
            BadInput: the images or the record cannot be used.
            CheckFailed: an activation is NaN or infinite.
        """
        settings, network = self.settings, network_sha256(self.graph)
        if settings.record is not None:
            record = read_record(settings.record)
            record.check(settings.record, self.info, None if settings.tuned else network)
            if settings.tuned:
                self._check_tuned(record)
                return dataclasses.replace(
                    record, network_sha256=network, rounding="nearest", correct_bias=False
                )
            return dataclasses.replace(
                record,
                precision=settings.precision,
                method=settings.method,
                weight_bits=settings.weight_bits,
                rounding=settings.rounding,
                correct_bias=settings.correct_bias and bool(self.images),
                thresholds=self._thresholds(record.histograms),
            )
        seen = self._observation
        peaks = {n: max(seen.peaks.get(n, 0.0), h.peak) for n, h in seen.histograms.items()}
        return CalibrationRecord(
            network_sha256=network,
            preprocessing_sha256=self.info.preprocessing_sha256,
            input=describe_input(self.info),
            images_sha256=self._images_sha256,
            images=len(seen.used),
            num=len(self.images),
            seed=settings.seed,
            histograms=seen.histograms,
            peaks={**seen.peaks, **peaks},
            precision=settings.precision,
            method=settings.method,
            weight_bits=settings.weight_bits,
            rounding=settings.rounding,
            correct_bias=settings.correct_bias,
            thresholds=self._thresholds(seen.histograms),
        )

    def sensitivity(self) -> dict[str, float]:
        """The error at the raw outputs when one layer alone is INT8, by layer, largest first."""
        found: dict[str, float] = self._saved.get("sensitivity") or {}
        layers, progress = self.placement.layers, Progress()
        if left := [layer for layer in layers if layer not in found]:
            for layer, error in sensitivity(self.model, left, self._alone, self._looked_at()):
                found[layer] = error
                self._saved.set("sensitivity", found)
                progress.update(len(found), len(layers), "layers looked at alone")
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def signal_to_noise(self, quantized: onnx.ModelProto) -> dict[str, float | None]:
        """The signal to noise at the raw outputs, in dB by tensor; empty without images."""
        if not self.images:
            return {}
        return signal_to_noise(self.model, quantized, self._looked_at())

    def quantized(self, kept: Collection[str]) -> onnx.ModelProto:
        """The graph in INT8 or FP8, but for some layers that stay in float."""
        return quantize(
            self.graph,
            self.placement.without(kept),
            self.record.thresholds,
            numbers=self._numbers,
            weight_bits=self.record.weight_bits,
            weights={n: (r.encoded, r.scales) for n, r in self._rounded.items()},
            shifts={n: s for r in self._rounded.values() for n, s in r.shifts.items()},
        )

    @cached_property
    def _rounded(self) -> dict[str, Rounded]:
        """The weights that images helped to round, or whose biases they correct; by name."""
        settings = self.settings
        if not self.images or (settings.rounding == "nearest" and not settings.correct_bias):
            return {}
        found = from_saved(self._saved.get("rounded") or {}, self._numbers)
        every = convolutions(self.graph, self.placement.convolutions)
        steps = round_weights(
            self.model,
            [c for c in every if c.weight not in found],
            self.record.thresholds,
            self._used,
            lambda path: as_frames(self.info, self._read(path)),
            rounding=settings.rounding,
            bits=settings.weight_bits,
            shift=settings.correct_bias,
            numbers=self._numbers,
        )
        for some in steps:
            found |= some
            self._saved.set("rounded", to_plain(found))
        return found

    def accuracy(
        self,
        name: str,
        make: Callable[[], onnx.ModelProto],
        precision: Precision,
        runtime: RuntimeChoice = "auto",
    ) -> Accuracy:
        """What a graph reaches on the annotated images.

        Args:
            name: the result is kept under it, and not measured again.
            make: gives the graph.
            precision: of its layers.

        Raises:
            BadInput: the annotated images cannot be used, or there are none.
        """
        if self._annotated is None:
            raise BadInput("there are no annotated images", fix="Give `annotations`")
        known = self._saved.get("accuracy") or {}
        if name not in known:
            info = dataclasses.replace(self.info, precision=precision, probe=None)
            reference = None if precision == "fp32" else self._reference
            with as_file(make(), info) as path:
                found, matches = measure(path, *self._annotated, runtime, reference=reference)
            if precision == "fp32":
                self._fp32 = matches
            known[name] = dataclasses.asdict(found)
            self._saved.set("accuracy", known)
            change = "" if found.change is None else f" ({found.change})"
            Progress().line(f"AP {100 * found.ap:.1f}{change}: {name}")
        return from_plain(Accuracy, known[name], "the saved accuracy", fix="Calibrate again")

    @property
    def _reference(self) -> Matches:
        """The matches of the FP32 file, which are made again after a stop."""
        if self._fp32 is None:
            assert self._annotated is not None
            _, self._fp32 = measure(self.model, *self._annotated)
        return self._fp32

    def finish(self) -> None:
        """Remove what was saved, for the job is done."""
        self._saved.remove()

    @cached_property
    def _observation(self) -> Observation:
        saved = self._saved.get("observed")
        seen = Observation(histograms={n: Histogram() for n in self.placement.activations})
        if saved is not None:
            seen = Observation.from_dict(saved)
        steps = observe(self.model, self.info, self.graph, self.images, seen, read=self._read)
        for _ in steps:
            if seen.done % SAVE_EVERY == 0 and seen.done < len(self.images):
                self._saved.set("observed", seen.to_dict())
        for problem in self._changed.records():
            Progress().line(str(problem))
        seen.check()
        self._saved.set("observed", seen.to_dict())
        return seen

    def _thresholds(self, histograms: dict[str, Histogram]) -> dict[str, float]:
        found = {name: threshold(h, self.settings.method) for name, h in histograms.items()}
        return found | {r: found[t] for r, t in self.placement.same_threshold.items()}

    def _check_tuned(self, record: CalibrationRecord) -> None:
        reads = {r.node: (r.tensor, r.position) for r in self.placement.readers}
        if not record.reads.items() <= reads.items() or record.precision != "int8":
            raise BadInput(
                f"the record {self.settings.record} is not of a network like {self.info.name}",
                fix="Give the record that was given to `retinart train --quantize`",
            )

    @property
    def _used(self) -> list[Path]:
        """The images, without those that observing them showed to be unreadable."""
        if self.settings.record is not None:
            return self.images
        return [Path(path) for path in self._observation.used]

    def _looked_at(self) -> list[Image]:
        """The first images as frames, those on which raw outputs are compared."""
        return [as_frames(self.info, self._read(path)) for path in self._used[:LOOKED_AT]]

    def _alone(self, layer: str) -> onnx.ModelProto:
        return self.quantized(set(self.placement.layers) - {layer})

    def _read(self, path: Path) -> Image:
        """An image; those that every step looks at are decoded once."""
        image = self._decoded.get(path)
        if image is None:
            image = read_image(path, note=self._changed.add)
            if len(self._decoded) < LOOKED_AT:
                self._decoded[path] = image
        return image

    def _key(self) -> str:
        """Identifies the job: files and settings of the same content, in any folder."""
        content = [self.info.preprocessing_sha256, self._images_sha256]
        content += [str(path and sha256(path)) for path in (self.model, self.settings.record)]
        content += [annotations_sha256(*self._annotated)] if self._annotated else []
        settings = self.settings
        content += [settings.precision, settings.method, settings.rounding]
        return json.dumps([*content, settings.weight_bits, settings.correct_bias])


def _check_weights(graph: onnx.ModelProto) -> None:
    for initializer in graph.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT:
            continue
        if not np.isfinite(numpy_helper.to_array(initializer)).all():
            raise BadInput(
                f"the weights {initializer.name} hold NaN or infinite values",
                fix="Train or export the model again",
            )


def _say_shared(images: list[Path], dataset: CocoDataset) -> None:
    """Say that AP is measured on images that also gave the ranges."""
    annotated = {image.path.resolve() for image in dataset.images}
    if shared := sum(path.resolve() in annotated for path in images):
        Progress().line(
            f"{shared} of the {len(images)} calibration images are also in {dataset.annotations}: "
            "for a proof, take the ranges from other images than AP"
        )


def _hash_of(images: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in images:
        digest.update(sha256(path).encode())
    return digest.hexdigest()
