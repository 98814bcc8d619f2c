"""Calibration: distributions whose answer is known, placement, and an INT8 file that runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from retinart.calib import observe as observing
from retinart.calib.calibrate import CalibrationSettings, calibrate
from retinart.calib.histogram import BINS, Histogram
from retinart.calib.methods import METHODS, entropy, mse, percentile, threshold
from retinart.calib.observe import choose_images
from retinart.calib.placement import place
from retinart.calib.quantize import quantize_weights
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, CheckFailed
from retinart.engine.images import read_image
from retinart.engine.info import read_info
from retinart.engine.matching import match
from retinart.export import tensorrt_rtx
from retinart.train.scenes import SceneSettings, make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve small scenes."""
    out = tmp_path_factory.mktemp("scenes") / "scenes"
    make_scenes(out, num=12, seed=4, settings=SceneSettings(size=(96, 128)))
    return out / "images"


def filled(*values: npt.NDArray[np.floating[Any]]) -> Histogram:
    histogram = Histogram()
    for part in values:
        histogram.add(part.astype(np.float32))
    return histogram


def test_histogram_does_not_depend_on_the_order_of_magnitudes() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.normal(0, 1, 50_000), rng.normal(0, 100, 50_000)
    growing, falling = filled(small, large), filled(large, small)
    for histogram in (growing, falling):
        assert histogram.counts.sum() == 100_000
        assert histogram.peak == pytest.approx(np.abs(large).max())
        assert histogram.upper >= histogram.peak
    assert percentile(growing) == pytest.approx(percentile(falling), rel=0.01)


def test_histogram_counts_zeros_apart_and_survives_json() -> None:
    histogram = filled(np.zeros(100), np.array([0.0, 1.0, -2.0]))
    assert (histogram.zeros, histogram.counts.sum(), histogram.peak) == (101, 2, 2.0)
    again = Histogram.from_dict(json.loads(json.dumps(histogram.to_dict())))
    assert np.array_equal(again.counts, histogram.counts)
    assert (again.upper, again.zeros) == (histogram.upper, 101)
    assert threshold(filled(np.zeros(5)), "entropy") == 0.0


def test_nan_is_refused() -> None:
    with pytest.raises(CheckFailed, match="NaN or infinite"):
        filled(np.array([1.0, np.nan]))


def test_uniform_values_are_not_clipped() -> None:
    """Of a flat distribution every method keeps nearly all: clipping costs more than it saves."""
    histogram = filled(np.random.default_rng(1).uniform(-3, 3, 200_000))
    for method in METHODS:
        assert threshold(histogram, method) == pytest.approx(3.0, rel=0.02), method


def test_an_outlier_is_clipped_by_all_but_minmax() -> None:
    rng = np.random.default_rng(2)
    histogram = filled(rng.normal(0, 1, 500_000), np.array([60.0]))
    assert threshold(histogram, "minmax") == 60.0
    assert percentile(histogram) == pytest.approx(3.89, abs=0.1)  # two-sided normal quantile
    assert 8 < mse(histogram) < 40  # a square weighs the one far value heavily
    assert 2 < entropy(histogram) < 8


def test_mse_is_the_best_of_a_direct_search() -> None:
    values = np.random.default_rng(3).standard_t(3, 100_000).astype(np.float32)
    histogram = filled(values)

    def error(limit: float) -> float:
        step = limit / 127
        return float(((np.clip(np.round(values / step), -127, 127) * step - values) ** 2).mean())

    best = min(error(limit) for limit in np.linspace(0.01, 1, 200) * histogram.peak)
    assert error(mse(histogram)) <= best * 1.05


def test_entropy_follows_the_published_rule() -> None:
    """Against the rule written down plainly, bin by bin."""
    values = np.random.default_rng(4).laplace(0, 1, 20_000).astype(np.float32)
    histogram = filled(values)
    counts = histogram.counts.astype(float)
    chosen = round(entropy(histogram) * BINS / histogram.upper)
    scores = {}
    for bins in (*range(128, BINS + 1, 37), chosen):
        reference = counts[:bins].copy()
        reference[-1] += counts[bins:].sum()
        merged = np.zeros(bins)
        for level in range(128):
            members = [i for i in range(bins) if i * 128 // bins == level]
            full = [i for i in members if counts[i] > 0]
            for i in full:
                merged[i] = counts[members].sum() / len(full)
        p, q = reference / reference.sum(), merged / merged.sum()
        if ((p > 0) & (q == 0)).any():
            q = np.maximum(q, 1e-10)
        scores[bins] = float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))
    assert min(scores, key=scores.__getitem__) == chosen


def test_weights_per_channel() -> None:
    weights = np.random.default_rng(5).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    weights *= np.array([1, 10, 100, 0], np.float32)[:, None, None, None]
    integers, scales = quantize_weights(weights)
    assert integers.dtype == np.int8 and np.abs(integers).max() == 127
    back = integers * scales[:, None, None, None]
    assert (np.abs(back - weights).max(axis=(1, 2, 3)) <= scales / 2 + 1e-6).all()
    assert not integers[3].any() and scales[3] == 1.0


def test_placement(model_path: Path) -> None:
    """Every convolution but the last of each head and level; additions at their skip; no Resize."""
    graph = onnx.load(model_path)
    placement = place(graph)
    nodes = {n.name: n for n in graph.graph.node}
    convolutions = [n for n in graph.graph.node if n.op_type == "Conv"]
    assert len(convolutions) - len(placement.convolutions) == 10  # two heads on five levels
    assert not any(".output" in name for name in placement.convolutions if "head" in name)
    kinds = Counter(
        nodes[name].op_type for readers in placement.activations.values() for name, _ in readers
    )
    additions = 4 + 2  # a shortcut a stage, two of the pyramid
    assert kinds == {"Conv": len(placement.convolutions), "Add": additions}
    skips = {
        (name, index): tensor
        for tensor, readers in placement.activations.items()
        for name, index in readers
        if nodes[name].op_type == "Add"
    }
    made_by = {tensor: nodes[tensor].op_type for tensor in skips.values()}
    assert Counter(made_by.values()) == {"MaxPool": 1, "Conv": 3, "Resize": 2}


@pytest.mark.parametrize("method", METHODS)
def test_an_int8_file_detects_alike(
    method: str, model_path: Path, scenes: Path, tmp_path: Path
) -> None:
    settings = CalibrationSettings(images=str(scenes), num=8, method=method)  # type: ignore[arg-type]
    report = calibrate(model_path, tmp_path / "model.int8.onnx", settings)
    info = read_info(report.path)
    assert info.precision == "int8"
    assert info.provenance["calibration"]["method"] == method
    record = json.loads(report.record.read_text("utf-8"))
    assert record["images"] == 8 and set(record["tensors"]) == set(report.thresholds)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.int8.json", "model.int8.onnx"]

    graph = onnx.load(report.path).graph
    kinds = Counter(n.op_type for n in graph.node)
    assert kinds["QuantizeLinear"] == len(report.thresholds)
    assert kinds["DequantizeLinear"] == len(report.thresholds) + report.convolutions
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any()

    alike = total = 0
    with Detector(model_path) as exact, Detector(report.path) as quantized:
        for path in sorted(scenes.iterdir())[8:]:
            image = read_image(path)
            expected, found = exact(image)[:20], quantized(image)[:40]
            loose = match(expected, found)
            total += len(expected)
            alike += sum(
                any(
                    label == other and np.abs(box - corner).max() < 4 and abs(score - s) < 0.1
                    for corner, s, other in found
                )
                for box, score, label in expected
            )
            assert loose.matched < 20  # it really is quantized: not equal to the last digit
    assert alike > 0.7 * total


def test_int8_on_both_runtimes(model_path: Path, scenes: Path, tmp_path: Path) -> None:
    report = calibrate(
        model_path,
        tmp_path / "model.onnx",
        CalibrationSettings(images=str(scenes), num=4),
    )
    image = read_image(sorted(scenes.iterdir())[-1])
    with Detector(report.path) as a, Detector(report.path, runtime="onnxruntime") as b:
        found, other = a(image), b(image)
    # an int8 rounding at .5 may fall either way, so the scores agree to a step and no better
    assert abs(float(found.confidence[:20].mean() - other.confidence[:20].mean())) < 0.02


def test_tensorrt_rtx_builds_int8(model_path: Path, scenes: Path, tmp_path: Path) -> None:
    if not tensorrt_rtx.available():
        pytest.skip("TensorRT-RTX is not installed")
    settings = CalibrationSettings(images=str(scenes), num=2, method="minmax")
    report = calibrate(model_path, tmp_path / "model.onnx", settings)
    assert tensorrt_rtx.check_build(report.path, read_info(report.path), max_batch=4).seconds > 0


def test_an_interrupted_calibration_goes_on(
    model_path: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CalibrationSettings(images=str(scenes), num=9)
    whole = calibrate(model_path, tmp_path / "whole.onnx", settings)
    seen: list[Path] = []

    def stop_at_the_sixth(path: Path) -> object:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(path)
        return read_image(path)

    monkeypatch.setattr(observing, "SAVE_EVERY", 4)
    monkeypatch.setattr(observing, "read_image", stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model_path, tmp_path / "again.onnx", settings)
    assert not (tmp_path / "again.onnx").exists()
    left = tmp_path / ".again.calibrating.json"
    assert json.loads(left.read_text("utf-8"))["done"] == 4

    seen.clear()

    def note(path: Path) -> object:
        seen.append(path)
        return read_image(path)

    monkeypatch.setattr(observing, "read_image", note)
    again = calibrate(model_path, tmp_path / "again.onnx", settings)
    assert len(seen) == 5 and not left.exists()
    assert again.thresholds == whole.thresholds


def test_bad_input(model_path: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def fails(message: str, images: Path, model: Path = model_path, **more: object) -> None:
        settings = CalibrationSettings(images=str(images), **{"num": 1, **more})  # type: ignore[arg-type]
        with pytest.raises(BadInput, match=message):
            calibrate(model, out / "model.onnx", settings)
        assert not list(out.iterdir())

    empty = tmp_path / "empty"
    empty.mkdir()
    fails("no images at", empty)
    fails("holds 12 images, and 13 were asked for. Use --num 12", scenes, num=13)
    broken, flat = tmp_path / "broken", tmp_path / "flat"
    broken.mkdir()
    flat.mkdir()
    (broken / "a.jpg").write_bytes(b"")
    cv2.imwrite(str(flat / "a.png"), np.full((64, 64, 3), 90, np.uint8))
    fails("none of the calibration images can be read", broken)
    fails("one colour each", flat)
    fails("0 images cannot calibrate", scenes, num=0)
    fails("unknown method 'best'", scenes, method="best")

    int8 = calibrate(
        model_path, tmp_path / "int8.onnx", CalibrationSettings(images=str(scenes), num=1)
    ).path
    fails("is int8 already", scenes, model=int8)
    fails("there is no model at", scenes, model=tmp_path / "absent.onnx")
    damaged = onnx.load(model_path)
    for initializer in damaged.graph.initializer:
        if initializer.name == "backbone.conv1.weight":
            values = numpy_helper.to_array(initializer).copy()
            values[0, 0, 0, 0] = np.nan
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    onnx.save(damaged, tmp_path / "nan.onnx")
    fails(r"backbone\.conv1\.weight hold NaN", scenes, model=tmp_path / "nan.onnx")


def test_images_are_drawn_by_seed(scenes: Path) -> None:
    first, again, other = (choose_images(str(scenes), 5, seed) for seed in (0, 0, 1))
    assert first == again != other
