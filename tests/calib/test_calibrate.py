"""Calibration: an INT8 file that runs and detects as its FP32 file."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from retinart.calib import calibration
from retinart.calib.calibrate import calibrate
from retinart.calib.calibration import Calibration
from retinart.calib.observe import choose_images
from retinart.calib.record import read_record
from retinart.calib.settings import CalibrationSettings
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import read_image
from retinart.engine.model.info import read_info
from retinart.engine.runtime.openvino_runner import OpenVINORunner
from support import save_changed


@pytest.mark.usefixtures("unmeasured")
# test_methods.py has the thresholds of all methods
@pytest.mark.parametrize("method", ["mse", "minmax"])
def test_an_int8_file_detects_alike(
    method: str, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    settings = CalibrationSettings(images=str(small_scenes), num=4, method=method)  # type: ignore[arg-type]
    report = calibrate(model_path, tmp_path / "model.int8.onnx", settings)
    info = read_info(report.path)
    assert info.precision == "int8"
    assert info.provenance["calibration"]["method"] == method
    record = read_record(report.record_path)
    assert record == report.record and record.images == 4
    assert set(record.histograms) == set(record.thresholds)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.int8.json", "model.int8.onnx"]

    graph = onnx.load(report.path).graph
    kinds = Counter(n.op_type for n in graph.node)
    assert kinds["QuantizeLinear"] == len(record.thresholds)
    assert kinds["DequantizeLinear"] == len(record.thresholds) + report.convolutions
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any()

    alike = total = 0
    with Detector(model_path) as exact, Detector(report.path) as quantized:
        for path in sorted(small_scenes.iterdir())[8:]:
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


@pytest.mark.usefixtures("unmeasured")
def test_int8_on_both_runtimes(model_path: Path, small_scenes: Path, tmp_path: Path) -> None:
    report = calibrate(
        model_path,
        tmp_path / "model.onnx",
        CalibrationSettings(images=str(small_scenes), num=4),
    )
    image = read_image(sorted(small_scenes.iterdir())[-1])
    with Detector(report.path) as a, Detector(report.path, runtime="onnxruntime") as b:
        found, other = a(image), b(image)
    # an int8 rounding at .5 may fall either way, so the scores agree to a step and no better
    assert abs(float(found.confidence[:20].mean() - other.confidence[:20].mean())) < 0.02


@pytest.mark.usefixtures("unmeasured")
def test_an_interrupted_calibration_goes_on(
    model_path: Path, small_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CalibrationSettings(images=str(small_scenes), num=9)
    whole = calibrate(model_path, tmp_path / "whole.onnx", settings)
    seen: list[Path] = []

    def stop_at_the_sixth(path: Path, **more: Any) -> object:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(path)
        return read_image(path)

    monkeypatch.setattr(calibration, "SAVE_EVERY", 4)
    monkeypatch.setattr(calibration, "read_image", stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model_path, tmp_path / "again.onnx", settings)
    assert not (tmp_path / "again.onnx").exists()
    left = tmp_path / ".again.calibrating.json"
    assert json.loads(left.read_text("utf-8"))["content"]["observed"]["done"] == 4

    seen.clear()

    def note(path: Path, **more: Any) -> object:
        seen.append(path)
        return read_image(path)

    monkeypatch.setattr(calibration, "read_image", note)
    again = calibrate(model_path, tmp_path / "again.onnx", settings)
    # Five are left, and raw outputs are compared on the first four.
    assert len(seen) == 9 and not left.exists()
    assert again.record == whole.record


@pytest.mark.usefixtures("unmeasured")
def test_bad_input(model_path: Path, small_scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def fails(message: str, images: Path, model: Path = model_path, **more: object) -> None:
        def run() -> None:
            settings = CalibrationSettings(images=str(images), **{"num": 1, **more})  # type: ignore[arg-type]
            calibrate(model, out / "model.onnx", settings)

        with pytest.raises(BadInput, match=message):
            run()
        assert not list(out.iterdir())

    empty = tmp_path / "empty"
    empty.mkdir()
    fails("no images at", empty)
    fails("holds 12 images, and 13 were asked for. Set `num` to 12", small_scenes, num=13)
    broken, flat = tmp_path / "broken", tmp_path / "flat"
    broken.mkdir()
    flat.mkdir()
    (broken / "a.jpg").write_bytes(b"")
    cv2.imwrite(str(flat / "a.png"), np.full((64, 64, 3), 90, np.uint8))
    fails("none of the calibration images can be read", broken)
    fails("one colour each", flat)
    fails("0 images cannot calibrate", small_scenes, num=0)
    fails("unknown method 'best'", small_scenes, method="best")

    int8 = calibrate(
        model_path, tmp_path / "int8.onnx", CalibrationSettings(images=str(small_scenes), num=1)
    ).path
    fails("is int8 already", small_scenes, model=int8)
    fails("there is no model at", small_scenes, model=tmp_path / "absent.onnx")
    foreign = onnx.load(model_path)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    fails("carries no metadata of retinart", small_scenes, model=tmp_path / "foreign.onnx")
    damaged = onnx.load(model_path)
    for initializer in damaged.graph.initializer:
        if initializer.name == "backbone.conv1.weight":
            values = numpy_helper.to_array(initializer).copy()
            values[0, 0, 0, 0] = np.nan
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    save_changed(damaged, tmp_path / "nan.onnx")
    fails(r"backbone\.conv1\.weight hold NaN", small_scenes, model=tmp_path / "nan.onnx")


def test_a_small_folder_is_taken_whole(
    small_scenes: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`calibrate --images` with 60 pictures failed, because the default was 200."""
    every = sorted(small_scenes.iterdir())
    assert choose_images(str(small_scenes), None, 0) == every
    said = f"{small_scenes} holds 12 images: all are used, where 200 are the default\n"
    assert capsys.readouterr().err == said
    assert len(choose_images(str(small_scenes), None, 0, usual=12)) == 12
    assert len(choose_images(str(small_scenes), None, 0, usual=5)) == 5
    assert capsys.readouterr().err == ""
    several = (str(small_scenes), str(images / "0.png"), str(every[0]))
    assert set(choose_images(several, 13, 0)) == {*every, images / "0.png"}
    with pytest.raises(BadInput, match=r"hold 13 images, and 14 were asked for"):
        choose_images(several, 14, 0)


def test_of_several_folders_one_is_named_as_the_annotated(images: Path) -> None:
    folders, file = (str(images), str(images.parent)), images / "0.png"
    with pytest.raises(BadInput, match="which `images` are annotated: there are several"):
        _ = CalibrationSettings(images=folders, annotations=file).annotated
    named = CalibrationSettings(images=folders, annotations=file, eval_images=images)
    assert named.annotated == (file, images)
    assert CalibrationSettings(images=folders[:1], annotations=file).annotated == (file, images)


def test_a_list_chooses_among_the_images(
    model_path: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One folder held the pictures of training and validation, and `calibrate` took all of it."""
    first = sorted(images.iterdir())[0].name
    listing = {
        "images": [{"id": 1, "file_name": first}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20]}],
        "categories": [{"id": 1, "name": read_info(model_path).classes[0]}],
    }
    file = tmp_path / "train.json"
    file.write_text(json.dumps(listing))
    assert choose_images(str(images), None, 0, listed_in=file) == [images / first]
    with pytest.raises(BadInput, match=f"holds 1 image of {file}, and 2 were asked for"):
        choose_images(str(images), 2, 0, listed_in=file)
    with pytest.raises(
        BadInput, match=r"`listed_in` .* chooses among `images`, and there are none"
    ):
        CalibrationSettings(record=file, listed_in=file)

    settings = CalibrationSettings(images=str(images), listed_in=file, annotations=file)
    Calibration(model_path, tmp_path / "int8.onnx", settings)
    said = f"1 of the 1 calibration images are also in {file}: for a proof"
    assert said in capsys.readouterr().err


def test_images_are_drawn_by_seed(small_scenes: Path) -> None:
    first, again, other = (choose_images(str(small_scenes), 5, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_residual_additions_run_within_int8_convolutions(int8_path: Path) -> None:
    """Taken out of them, as OpenVINO does on its own, they cost a float feature map each."""
    with Detector(int8_path, threads=1) as detector:
        assert isinstance(detector.runner, OpenVINORunner)
        executed = detector.runner.compiled(1).get_runtime_model().get_ordered_ops()
    kinds = {
        layer: str(op.get_rt_info()["layerType"].astype(str))
        for op in executed
        for layer in op.get_rt_info()["originalLayersNames"].astype(str).split(",")
    }
    additions = [kind for name, kind in kinds.items() if re.fullmatch(r"backbone.*\.add", name)]
    assert additions == ["Convolution"] * 4
