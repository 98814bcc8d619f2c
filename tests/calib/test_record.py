"""The calibration record: used again where it is valid, refused where it is not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from retinart.calib.calibrate import calibrate
from retinart.calib.network import network_sha256
from retinart.calib.record import read_record
from retinart.calib.settings import CalibrationSettings
from retinart.engine.errors import BadInput
from retinart.engine.model.info import METADATA_KEY, read_info
from retinart.export.settings import ExportSettings
from support import export_unchecked, save_changed

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def record(int8_path: Path) -> Path:
    return int8_path.with_suffix(".json")


def with_info(model: Path, path: Path, **changes: Any) -> Path:
    """A copy of a file whose metadata says something else."""
    graph = onnx.load(model)
    info = dataclasses.replace(read_info(model), **changes)
    onnx.helper.set_model_props(graph, {METADATA_KEY: info.to_json()})
    onnx.save(graph, path)
    return path


def test_it_says_where_the_ranges_come_from(record: Path, model_path: Path) -> None:
    content, info = read_record(record), read_info(model_path)
    assert content.network_sha256 == network_sha256(onnx.load(model_path))
    assert content.preprocessing_sha256 == info.preprocessing_sha256
    assert (content.input, content.images, content.num, content.seed) == ("96x128", 4, 4, 0)
    assert content.method == "minmax" and content.kept_float == ()
    assert content.histograms.keys() == content.thresholds.keys() <= content.peaks.keys()
    for name, histogram in content.histograms.items():
        assert content.peaks[name] >= histogram.peak >= content.thresholds[name] > 0


@pytest.mark.usefixtures("unmeasured")
def test_the_ranges_serve_again(
    retinart: Command, record: Path, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    """Another method from the same record gives what it gives from the same images."""
    fresh = calibrate(
        model_path,
        tmp_path / "fresh.onnx",
        CalibrationSettings(images=str(small_scenes), num=4, method="minmax"),
    )
    out = tmp_path / "again.onnx"
    ran = retinart("calibrate", model_path, "--record", record, "--method", "minmax", "-o", out)
    assert ran.returncode == 0 and "by minmax over 4 images" in ran.stderr
    assert read_record(out.with_suffix(".json")) == fresh.record
    assert onnx.load(out).graph.node == onnx.load(fresh.path).graph.node
    assert read_info(out).provenance == read_info(fresh.path).provenance


@pytest.mark.usefixtures("unmeasured")
def test_other_thresholds_of_detection_do_not_matter(
    record: Path, noisy_checkpoint: Path, tmp_path: Path
) -> None:
    """The network is the same, so its ranges are."""
    settings = ExportSettings(height=96, width=128, max_det=7, tensorrt=False)
    model = export_unchecked(noisy_checkpoint, tmp_path / "m.onnx", settings)
    report = calibrate(model, tmp_path / "int8.onnx", CalibrationSettings(record=record))
    assert read_info(report.path).thresholds.detections_per_img == 7


def test_other_weights_sizes_and_preprocessing_are_refused(
    retinart: Command, record: Path, model_path: Path, dynamic_model_path: Path, tmp_path: Path
) -> None:
    graph = onnx.load(model_path)
    for initializer in graph.graph.initializer:
        if initializer.name == "backbone.conv1.weight":
            values = numpy_helper.to_array(initializer).copy()
            values[0, 0, 0, 0] += 1e-3
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    info = read_info(model_path)
    save_changed(graph, tmp_path / "weights.onnx")
    variant = dataclasses.replace(info.variant, mean=(1.0, 2.0, 3.0))
    size = (96, 160)
    larger = dataclasses.replace(
        info, resize=dataclasses.replace(info.resize, canvas=size), min_size=size, max_size=size
    )
    content = read_record(record)
    with pytest.raises(BadInput, match="its input is 96x128, and the model's is 96x160"):
        content.check(record, larger, content.network_sha256)
    cases = {
        tmp_path / "weights.onnx": "other weights or layers",
        dynamic_model_path: "other weights or layers",  # its graph computes other shapes
        with_info(model_path, tmp_path / "mean.onnx", variant=variant): "normalised differently",
    }
    for model, reason in cases.items():
        if model == dynamic_model_path:
            reason = "does not fit dynamic"
        ran = retinart("calibrate", model, "--record", record, "-o", tmp_path / "o" / "int8.onnx")
        assert ran.returncode == 2 and reason in ran.stderr, ran.stderr
        assert "Calibrate on --images" in ran.stderr
        assert not (tmp_path / "o").exists()


def test_damaged_records(record: Path, tmp_path: Path) -> None:
    content = json.loads(record.read_text("utf-8"))
    bad = tmp_path / "bad.json"
    for text, reason in (
        ("", "Expecting value"),
        ("[]", "has no schema number"),
        ("[" * 5000, "nested more than 64 deep"),
        (json.dumps({**content, "schema": 99}), "has schema 99"),
        (json.dumps({**content, "peaks": {}}), "of different tensors"),
        (json.dumps({**content, "images": 0}), "it is of 8 bits and 0 of 4 images"),
        (json.dumps({**content, "histograms": {"x": {"counts": [1]}}}), "x: "),
        (json.dumps({k: v for k, v in content.items() if k != "peaks"}), "peaks"),
        (json.dumps({**content, "more": 1}), "more"),
    ):
        bad.write_text(text)
        with pytest.raises(BadInput, match=reason):
            read_record(bad)
    with pytest.raises(BadInput, match="No such file"):
        read_record(tmp_path / "absent.json")
