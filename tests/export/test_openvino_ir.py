"""OpenVINO's IR with NMS inside, run by plain `openvino`: the detections of `Detector`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import Image
from retinart.engine.model.info import METADATA_KEY, OUTPUTS, ModelInfo, Thresholds, read_info
from retinart.engine.runtime import winograd
from retinart.engine.runtime.openvino_api import load_openvino
from retinart.engine.runtime.options import RuntimeChoice
from retinart.export import openvino_ir
from retinart.export.openvino_ir import write_ir
from support import files_below, made_info, make_picture

Command = Callable[..., CompletedProcess[str]]
PICTURES = 8
Arrays = list[npt.NDArray[Any]]


def compiled(path: Path) -> Any:
    """An IR, loaded as any program with OpenVINO loads it."""
    core = load_openvino().Core()
    # the weights beside it are found by OpenVINO itself
    return core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def detections(outputs: Arrays, image: int = 0) -> Detections:
    """One image's detections, in pixels of the frame."""
    count, boxes, scores, labels = (output[image] for output in outputs)
    n = int(count[0])
    assert not boxes[n:].any() and not scores[n:].any() and not labels[n:].any()
    return Detections(xyxy=boxes[:n], confidence=scores[:n], class_id=labels[:n])


def pictures(height: int = 96, width: int = 128) -> list[Image]:
    return [make_picture(seed, height, width) for seed in range(PICTURES)]


def compare(model: Path, ir: Path, images: list[Image], runtime: RuntimeChoice = "openvino") -> int:
    """Run both on images that fill the frame; returns how many detections they share."""
    network, matched = compiled(ir), 0
    with Detector(model, runtime=runtime) as detector:
        most = detector.thresholds.detections_per_img
        for image in images:
            frames, (resized,) = detector.info.resize.apply([image])
            found = network(frames)
            assert [port.get_any_name() for port in network.outputs] == list(OUTPUTS)
            one = resized.detections_to_source(detections([found[name] for name in OUTPUTS]))
            expected = detector(image)
            cut = float(expected.confidence[-1]) if len(expected) == most else 0.0
            result = match(expected, one, floor=max(cut, detector.thresholds.score_thresh))
            assert result.same and abs(len(expected) - len(one)) <= 1, result
            matched += result.matched
    return matched


@pytest.mark.parametrize("kind", ["fp32", "int8", "dynamic"])
def test_the_same_detections(
    kind: str, model_path: Path, int8_path: Path, dynamic_model_path: Path, tmp_path: Path
) -> None:
    model = {"fp32": model_path, "int8": int8_path, "dynamic": dynamic_model_path}[kind]
    report = write_ir(model, tmp_path / "model.xml")
    assert compare(model, report.path, pictures()) > PICTURES
    assert files_below(tmp_path) == ["model.bin", "model.xml"]


def test_a_batch_gives_what_its_images_give(model_path: Path, tmp_path: Path) -> None:
    network = compiled(write_ir(model_path, tmp_path / "model.xml").path)
    frames = np.stack([*pictures()[:3], np.zeros((96, 128, 3), np.uint8)])
    together = [network(frames)[name] for name in OUTPUTS]
    for i, frame in enumerate(frames):
        alone = [network(frame[None])[name][0] for name in OUTPUTS]
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, all_[i], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "drop"),
    [
        ({"box_plus_one": True}, {}),
        ({"box_plus_one": True, "clip_before_nms": False}, {}),
        ({"clip_before_nms": False}, {"drop_classes": "1"}),
    ],
)
def test_inclusive_corners_late_clipping_and_dropped_classes(
    change: dict[str, Any],
    drop: dict[str, Any],
    changed_path: Callable[..., Path],
    tmp_path: Path,
) -> None:
    model = changed_path(**change, **drop)
    # the file's own NMS: `Detector` on OpenVINO clips after NMS only in the image's pixels
    ir = write_ir(model, tmp_path / "a.xml").path
    assert compare(model, ir, pictures(), "onnxruntime") > PICTURES


def test_winograd(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_ir(model_path, tmp_path / "a.xml").winograd == 0
    monkeypatch.setattr(winograd, "expected_times", lambda sizes: (2.0, 1.0))
    report = write_ir(model_path, tmp_path / "b.xml", winograd=True)
    assert report.winograd > 20
    assert compare(model_path, report.path, pictures()) > PICTURES


def test_it_says_what_it_is(model_path: Path, tmp_path: Path) -> None:
    ir = write_ir(model_path, tmp_path / "model.xml").path
    said = load_openvino().Core().read_model(ir).get_rt_info()["model_info"]
    said = {key: value.astype(str) for key, value in said.items()}
    assert said["labels"] == "disc square ring" and said["reverse_input_channels"] == "False"
    info = read_info(model_path)
    assert ModelInfo.from_json(said[METADATA_KEY], "model.xml") == info
    assert float(said["iou_threshold"]) == info.thresholds.nms_thresh


def test_labels_with_spaces() -> None:
    said = openvino_ir.model_info(made_info(classes=("traffic light", " ", "dog")))
    assert said["labels"].split(" ") == ["traffic_light", "_", "dog"]


@pytest.mark.parametrize("most", [7, 60])
def test_only_the_best_pairs_enter_nms(most: int) -> None:
    """As many as `nms_candidates`, of each image; with fewer above the threshold, all of them."""
    openvino = load_openvino()
    given = openvino.opset13.parameter([-1, 20, 3], np.float32)
    thresholds = Thresholds(score_thresh=0.5, nms_candidates=most, detections_per_img=5)
    best = openvino_ir._best_pairs(given.output(0), thresholds)
    network = openvino.Core().compile_model(openvino.Model([best], [given], "p"), "CPU")
    scores = np.random.default_rng(0).random((2, 20, 3), np.float32)
    for high in (scores, scores * 0.5):  # half of the pairs are above the threshold, or none
        (found,) = network(high).values()
        many = most < 60 and (high > 0.5).sum(axis=(1, 2)).max() > most
        for image, kept in zip(high, found, strict=True):
            cut = np.sort(image.ravel())[-most] if many else 0
            np.testing.assert_array_equal(kept, np.where(image >= cut, image, 0))


def test_what_does_not_fit(
    retinart: Command, model_path: Path, int8_path: Path, dynamic_model_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "model.xml"
    for message, *arguments in (
        ("it is int8, and Winograd's algorithm takes", int8_path, "--winograd"),
        ("it has dynamic sizes, and Winograd's", dynamic_model_path, "--winograd"),
        ("ranges of activations are for FP16", model_path, "--images", tmp_path),
        ("there is no model at", tmp_path / "none.onnx"),
    ):
        ran = retinart("convert", *arguments, "--to", "openvino", "-o", out)
        assert (ran.returncode, ran.stdout) == (2, "") and message in ran.stderr, ran.stderr
        assert not out.parent.exists()
    ran = retinart("convert", model_path, "--to", "openvino", "-o", tmp_path / "model.onnx")
    assert ran.returncode == 2 and f"Name it {tmp_path / 'model.xml'}" in ran.stderr
    ran = retinart("convert", model_path, "--winograd", "-o", tmp_path / "half.onnx")
    assert ran.returncode == 2 and "--winograd is for OpenVINO's IR" in ran.stderr
    assert files_below(tmp_path) == []


def test_a_write_that_fails_leaves_the_older_files(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ir = write_ir(model_path, tmp_path / "model.xml").path
    before = [path.read_bytes() for path in (ir, ir.with_suffix(".bin"))]

    def serialize(graph: Any, graph_path: str, weights_path: str) -> None:
        Path(weights_path).write_bytes(b"half of it")
        raise RuntimeError("no space left on the device")

    monkeypatch.setattr(load_openvino(), "serialize", serialize)
    with pytest.raises(Exception, match="no space left"):
        write_ir(model_path, ir)
    assert [path.read_bytes() for path in (ir, ir.with_suffix(".bin"))] == before
    assert files_below(tmp_path) == ["model.bin", "model.xml"]


def test_the_command_prints_the_path(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.xml"
    ran = retinart("convert", model_path, "--to", "openvino", "--winograd", "-o", out)
    assert (ran.returncode, ran.stdout) == (0, f"{out}\n"), ran.stderr
    assert "Winograd's algorithm: 0" in ran.stderr and "note" not in ran.stderr


def test_what_int8_weights_need(
    retinart: Command, model_path: Path, int8_path: Path, tmp_path: Path
) -> None:
    """On a CPU without VNNI not one detection of this file was right."""
    said = "note: its INT8 weights have 8 bits"
    ran = retinart("convert", int8_path, "--to", "openvino", "-o", tmp_path / "int8.xml")
    assert ran.returncode == 0 and said in ran.stderr
    for server, *more in (("openvino-model-server",), ("triton", "--backend", "openvino")):
        ran = retinart("bundle", int8_path, "--for", server, *more, "-o", tmp_path / server)
        assert ran.returncode == 0 and said in ran.stderr
    ran = retinart("bundle", int8_path, "--for", "triton", "-o", tmp_path / "onnx")
    assert ran.returncode == 0 and "note" not in ran.stderr
