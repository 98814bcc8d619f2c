"""The self-test: every form of a file passes on both runtimes, and six faults have six messages."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from retinart.calib.convert import convert
from retinart.calib.settings import ConvertSettings
from retinart.engine.common.cpu import instruction_sets
from retinart.engine.common.user_cache import user_cache
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, CheckFailed
from retinart.engine.media.images import Image
from retinart.engine.model.info import METADATA_KEY, ModelInfo, read_info
from retinart.engine.model.probe import Probe
from retinart.engine.runtime.openvino_api import has_bf16
from retinart.engine.runtime.runner import Floats, Prepared, Runner
from retinart.engine.self_test.check import BARS, CheckReport, check_model, check_once
from retinart.engine.self_test.picture import probe_picture, probe_positions, probe_size

Command = Callable[..., subprocess.CompletedProcess[str]]

# What a runner would answer that does not know of saturation, on AVX512 without VNNI.
SATURATING = """
import sys
from pathlib import Path
from retinart.engine.common.user_cache import user_cache
from retinart.engine.detector import Detector
from retinart.engine.runtime import openvino_runner
openvino_runner.avoid_saturation = lambda model, device: 0
Detector(Path(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own, so that every check is made. Compiled models are shared."""
    folder, shared = tmp_path / "cache", user_cache("compiled")
    assert shared is not None
    shared.mkdir(exist_ok=True)
    (folder / "retinart").mkdir(parents=True)
    (folder / "retinart" / "compiled").symlink_to(shared)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def detector(model_path: Path) -> Iterator[Detector]:
    with Detector(model_path, check=False) as detector:
        yield detector


def probe_of(path: Path) -> Probe:
    probe = read_info(path).probe
    assert probe is not None
    return probe


def check(
    detector: Detector, runner: Runner | None = None, path: Path | None = None
) -> CheckReport:
    """The report on a detector's model, perhaps as a broken runner computes it."""
    info = detector.info
    assert info.probe is not None
    return check_model(runner or detector.runner, info, detector.precision, info.probe, path)


class Broken:
    """A runner that passes everything on; a subclass breaks one thing."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.name, self.info = runner.name, runner.info
        self.thresholds, self.identity = runner.thresholds, runner.identity
        self.max_in_flight = runner.max_in_flight

    def prepare(self, images: Sequence[Image]) -> Prepared:
        return self._runner.prepare(images)

    def tensors(self, names: Sequence[str], frames: Image) -> dict[str, Floats] | None:
        return self._runner.tensors(names, frames)

    def close(self) -> None:
        self._runner.close()


class SwappedColours(Broken):
    def tensors(self, names: Sequence[str], frames: Image) -> dict[str, Floats] | None:
        return self._runner.tensors(names, np.ascontiguousarray(frames[..., ::-1]))


class OtherAnchors(Broken):
    def tensors(self, names: Sequence[str], frames: Image) -> dict[str, Floats] | None:
        found = dict(self._runner.tensors(names, frames) or {})
        if "candidate_boxes" in found:
            found["candidate_boxes"] = found["candidate_boxes"][:, ::-1]
        return found


class Overflow(Broken):
    def tensors(self, names: Sequence[str], frames: Image) -> dict[str, Floats] | None:
        found = dict(self._runner.tensors(names, frames) or {})
        found["logits_p4"] = np.where(found["logits_p4"] > 0, np.float32(np.inf), np.float32(0))
        return found


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("form", ["fp32", "fp16", "int8", "int8+fp16", "dynamic"])
def test_every_form_passes(
    form: str, runtime: str, model_path: Path, int8_path: Path, dynamic_model_path: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    paths = {"fp32": model_path, "int8": int8_path, "dynamic": dynamic_model_path}
    if form.endswith("fp16"):
        source = int8_path if form.startswith("int8") else model_path
        paths[form] = convert(source, tmp_path / "half.onnx", ConvertSettings()).path
    path = paths[form]
    with Detector(path, runtime=runtime, check=False) as detector:  # type: ignore[arg-type]
        report = check(detector, path=path)
    assert report.good, report
    assert [s.name for s in report.stages] == ["graph", "raw outputs", "candidates", "NMS"]


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_bf16_passes(form: str, model_path: Path, int8_path: Path) -> None:
    if not has_bf16():
        pytest.skip("this CPU has no bf16")
    path = int8_path if form == "int8" else model_path
    with Detector(path, compute="bf16", check=False) as detector:
        assert check(detector, path=path).good


def test_saturation_is_caught(int8_path: Path) -> None:
    """Without the 7-bit step an INT8 file is refused on a CPU without VNNI."""
    if "avx512f" not in instruction_sets():
        pytest.skip("this CPU has no AVX512 to be held to")
    ran = subprocess.run(
        [sys.executable, "-c", SATURATING, str(int8_path)],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1 and "products of 8-bit integers overflow" in ran.stderr


@pytest.mark.parametrize(
    ("broken", "stage", "cause"),
    [
        (SwappedColours, "raw outputs", "red and blue are swapped"),
        (OtherAnchors, "candidates", "anchors in another order"),
        (Overflow, "raw outputs", "values overflow"),
    ],
)
def test_a_broken_runner_is_caught(
    broken: type[Broken], stage: str, cause: str, detector: Detector
) -> None:
    report = check(detector, broken(detector.runner))
    assert not report.good and report.stages[-1].name == stage
    assert cause in report.cause and report.fix


def test_another_nms_threshold_is_caught(model_path: Path, detector: Detector) -> None:
    with Detector(model_path, iou=0.9, check=False) as other:
        runner = Broken(other.runner)
        runner.thresholds = detector.thresholds  # so it says
        report = check(detector, runner)
    assert report.stages[-1].name == "NMS" and "other detections" in report.cause


def test_a_damaged_weight_is_caught(model_path: Path, tmp_path: Path) -> None:
    data = bytearray(model_path.read_bytes())
    data[len(data) // 2] ^= 0x40
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(data)
    with pytest.raises(CheckFailed, match="are not those that were exported") as caught:
        Detector(damaged)
    assert "`check=False`" in str(caught.value)
    Detector(damaged, check=False).close()


def test_it_is_done_once(model_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Detector(model_path) as detector:
        assert detector.checked.startswith("self-test passed: raw outputs noise")
    (kept,) = cache.rglob("*.txt")
    monkeypatch.setattr("retinart.engine.self_test.check.check_model", None)
    with Detector(model_path) as detector:
        assert detector.checked.startswith("self-test passed before")
    kept.unlink()
    with pytest.raises(TypeError):
        Detector(model_path)


def test_the_command_line_prints_it_once(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, cache: Path
) -> None:
    given = ("detect", model_path, images, "--out", tmp_path / "out")
    assert f"{model_path}: self-test passed: raw outputs noise" in retinart(*given).stderr
    ran = retinart(*given, "--overwrite")
    assert ran.returncode == 0 and "self-test" not in ran.stderr


def test_a_cache_that_cannot_be_written(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with Detector(model_path) as detector:
        assert detector.checked.startswith("self-test passed: ")


class Opaque(Broken):
    """As an engine is: it shows no tensors."""

    def tensors(self, names: Sequence[str], frames: Image) -> None:
        return None


def test_a_check_of_nothing_does_not_pass(
    model_path: Path, detector: Detector, cache: Path
) -> None:
    """An engine whose probe holds no detections: nothing is compared, passed or remembered."""
    runner, info = Opaque(detector.runner), detector.info
    assert info.probe is not None
    empty = dataclasses.replace(info, probe=dataclasses.replace(info.probe, detections=()))
    assert empty.probe is not None
    report = check_model(runner, empty, detector.precision, empty.probe)
    assert report.stages == () and not report.good
    said = check_once(runner, empty, detector.precision, model_path, engine=True)
    assert said == "no self-test: nothing can be compared" and not list(cache.rglob("*.txt"))
    assert check_model(runner, info, detector.precision, info.probe).good


def test_a_file_without_a_probe(model_path: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(model_path)
    info = dataclasses.replace(read_info(model_path), probe=None)
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    onnx.save(model, tmp_path / "old.onnx")
    with Detector(tmp_path / "old.onnx") as detector:
        assert "carries no probe" in detector.checked


def test_other_settings_are_checked_as_far_as_they_go(model_path: Path) -> None:
    """A higher threshold, fewer detections, another size: no false alarm."""
    for more in ({"conf": 0.4}, {"max_det": 3}, {"iou": 0.3}):
        with Detector(model_path, **more) as detector:
            assert "passed" in detector.checked


def test_another_size_of_a_dynamic_file(dynamic_model_path: Path) -> None:
    short = read_info(dynamic_model_path).min_size[0]
    with Detector(dynamic_model_path, imgsz=short) as detector:
        assert detector.checked.startswith("self-test passed: ")


def test_the_probe_comes_back_from_json(model_path: Path, int8_path: Path) -> None:
    for path in (model_path, int8_path):
        info = read_info(path)
        assert ModelInfo.from_json(info.to_json(), "x") == info
        assert info.probe is not None and len(info.probe.detections) > 0
    assert probe_of(model_path).rounding == 0 < probe_of(int8_path).rounding


@pytest.mark.parametrize(
    "change",
    [{"size": [1]}, {"raw": {"logits_p3": ["x"]}}, {"rounding": "NaN"}, {"candidates": [[1]]}],
)
def test_a_damaged_probe(change: dict[str, object], model_path: Path) -> None:
    data = json.loads(read_info(model_path).to_json())
    data["probe"] |= change
    with pytest.raises(BadInput, match="metadata of x is damaged"):
        ModelInfo.from_json(json.dumps(data), "x")


def test_the_rule_does_not_change() -> None:
    """Files that are out there hold answers to these very pictures."""
    picture = probe_picture(3, (70, 90))
    assert picture.shape == (70, 90, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == picture[3, 3].tolist()  # one square of 4
    share = [(picture == v).mean() for v in (0, 255)]
    assert min(share) > 0.1  # extremes
    assert int(picture.astype(np.int64).sum()) == PICTURE_SUM
    assert probe_positions(3, 2, 1000)[:4].tolist() == POSITIONS_OF_3


def test_the_picture_is_not_resized(model_path: Path, dynamic_model_path: Path) -> None:
    for path in (model_path, dynamic_model_path):
        info = read_info(path)
        size = probe_size(info)
        picture = probe_picture(0, size)
        frames, _ = info.resize.apply([picture])
        assert np.array_equal(frames[0, : size[0], : size[1]], picture)


def test_every_precision_has_a_bar() -> None:
    assert set(BARS) >= {"fp32", "fp32-direct", "fp16", "bf16", "int8", "int8+fp16", "int8+bf16"}


PICTURE_SUM = 2196376
POSITIONS_OF_3 = [112, 137, 767, 716]


def test_nms_without_detections_is_not_tested(model_path: Path) -> None:
    """Seen: "0 of 0 alike (needed: 95%)"."""
    with Detector(model_path, check=False, conf=0.999) as detector:
        probe = detector.info.probe
        assert probe is not None
        report = check_model(detector.runner, detector.info, "fp32", probe, model_path)
    assert report.good and report.stages[-1].name == "NMS"
    assert report.stages[-1].text == "not tested: no detections"
