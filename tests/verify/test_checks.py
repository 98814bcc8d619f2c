"""The checks of engines on a GPU, on doubles of TensorRT and CUDA: each passes, and fails too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from fake_tensorrt import PLAN, FakeTensorRT, FakeTensorRTRTX, engine_info, engine_runner
from onnx import helper

from efficient_nms import efficient_nms
from recording_gpu import RecordingCuda
from retinart.benchmarks.timing.worker import Incomplete
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import Tolerance
from retinart.engine.media.images import list_images, read_image
from retinart.engine.model.info import CANDIDATES, INPUT, Thresholds, read_info
from retinart.engine.runtime.runner import from_outputs
from retinart.engine.tensorrt.api import installed, load_tensorrt
from retinart.engine.tensorrt.engine_file import engine_json
from retinart.engine.tensorrt.runner import TensorRTRunner
from retinart.export.efficient_nms import plugin_attributes
from retinart.verify import checks, judge
from retinart.verify.bundle import load_detections, save_detections
from retinart.verify.checks import Subject
from retinart.verify.judge import FAULTS, Bar
from support import make_picture


class Doubles:
    """A detector whose engine runs on doubles of TensorRT and CUDA, without a GPU."""

    def __init__(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.captures, self.made = model, True, list[RecordingCuda]()
        monkeypatch.setattr(checks, "Detector", self.detector)

    def detector(self, path: Path, max_det: int | None = None, **options: Any) -> Detector:
        self.made.append(cuda := RecordingCuda(captures=self.captures))
        if folder := options.pop("cache_dir", None):
            options["cache_dir"] = Path(folder)
        info, trt = engine_info(self.model, 32), FakeTensorRTRTX(self.model, cuda)
        detect = Detector(self.model, runtime="onnxruntime", max_det=max_det)
        detect._runner = engine_runner(info, detect.thresholds, trt, cuda, **options)
        return detect


@pytest.fixture
def doubles(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doubles:
    return Doubles(model_path, monkeypatch)


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    cv2.imwrite(str(path := tmp_path / "a.png"), make_picture(0, 96, 128))
    return Subject(engine=Path("e"), images=(path,), repeats=2, frames=1, seconds=0.01,
                   batches=(1, 2), contexts=(1, 2, 3, 4))  # fmt: skip


def test_plain_launches_in_the_place_of_graphs_fail(
    doubles: Doubles, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        TensorRTRunner,
        "device_ms",
        lambda runner, frames: runner.start(frames, StageClock())() and 1.0,
    )
    monkeypatch.setattr(checks, "WARM", 1)
    good = checks.latency(subject)
    assert set(good) == {"no graph", "graph"} and set(good["graph"]) == {"device", "end to end"}
    doubles.captures = False
    with pytest.raises(Incomplete) as caught:
        checks.latency(subject)
    figures = caught.value.figures
    assert figures["no graph"].keys() == good["no graph"].keys()
    (fault,) = figures["graph"][FAULTS]
    assert fault.startswith("plain launches, for want of a graph: ") and "(900)" in fault


@pytest.fixture
def compared(doubles: Doubles, subject: Subject, tmp_path: Path) -> Subject:
    """With references that the double itself has found."""
    with doubles.detector(Path("e")) as detect:
        save_detections(path := tmp_path / "found.npz", [detect(subject.picture())])
    return dataclasses.replace(subject, references={"onnxruntime": path})


def test_detections_are_judged(
    doubles: Doubles, subject: Subject, compared: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = checks.compare(compared)
    plain = good["no graph"]["onnxruntime"]
    assert plain["alone"] == 0 < plain["counted"]
    assert good["graph"] == {"results": 3, "differ": 0}
    assert checks.gpu_resize(compared)["onnxruntime"]["alone"] == 0
    with pytest.raises(Incomplete, match="no references"):
        checks.compare(subject)
    real = doubles.detector

    def stricter(path: Path, **settings: Any) -> Detector:
        return real(path, max_det=3 if settings.get("graphs", True) else None, **settings)

    monkeypatch.setattr(checks, "Detector", stricter)
    with pytest.raises(Incomplete) as caught:
        checks.compare(compared)
    assert caught.value.figures["no graph"] == good["no graph"]
    assert caught.value.figures["graph"][FAULTS][0].startswith("3 results differ")
    (found,) = load_detections(compared.references["onnxruntime"])
    moved = dataclasses.replace(found, confidence=found.confidence * 0.9)
    save_detections(compared.references["onnxruntime"], [moved])
    with pytest.raises(Incomplete) as caught:
        checks.compare(compared)
    (fault,) = caught.value.figures["no graph"][FAULTS]
    assert fault.startswith("onnxruntime: 0.") and "at least 1 shall" in fault


def test_a_variant_that_fails_leaves_the_others(
    doubles: Doubles, compared: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, error = doubles.detector, list[Exception]([RuntimeError("nvcc fatal")])

    def fails(path: Path, **settings: Any) -> Detector:
        if settings.get("graphs", True):
            raise error[0]
        return real(path, **settings)

    monkeypatch.setattr(checks, "Detector", fails)
    with pytest.raises(Incomplete) as caught:
        checks.compare(compared)
    assert caught.value.figures["no graph"]["onnxruntime"]["alone"] == 0
    assert caught.value.figures["graph"] == "RuntimeError: nvcc fatal"
    error[0] = ModuleNotFoundError("No module named 'pycuda'")
    with pytest.raises(ModuleNotFoundError):  # the others would lack it too
        checks.compare(compared)


def detections(*rows: tuple[float, float, int]) -> Detections:
    """Of (x of a box 100 wide, score, class)."""
    return Detections(
        xyxy=np.array([[x, 0, x + 100, 100] for x, _, _ in rows], np.float32).reshape(-1, 4),
        confidence=np.array([score for _, score, _ in rows], np.float32),
        class_id=np.array([label for _, _, label in rows], np.int32),
    )


def test_which_detections_agree() -> None:
    bar = Bar(Tolerance(score=0.02, iou=0.9), share=0.75)
    limits = Thresholds(score_thresh=0.05, nms_thresh=0.5, detections_per_img=4)
    want = detections((0, 0.9, 1), (300, 0.5, 2), (600, 0.06, 1))
    for found, counted, alone in (
        (want, 4, 0),  # the last one is too near the threshold to count
        (detections((2, 0.91, 1), (300, 0.5, 2)), 4, 0),
        (detections((8, 0.9, 1), (300, 0.5, 2)), 4, 2),  # its box is elsewhere
        (detections((0, 0.87, 1), (300, 0.5, 2)), 4, 2),  # its score is another
        (detections((0, 0.9, 0), (300, 0.5, 2)), 4, 2),  # its class is another
        (detections((0, 0.9, 1), (0, 0.9, 1), (300, 0.5, 2)), 5, 1),  # twice: one to one
        (detections((0, 0.9, 1), *[(900, 0.6, 2)] * 3), 2, 0),  # full, so cut at 0.6
    ):
        figures, faults = judge.compared([want], [found], bar, limits)
        assert (figures["counted"], figures["alone"]) == (counted, alone), found
        assert bool(faults) is (alone / counted > 0.25)
    figures, _ = judge.compared([want], [detections((2, 0.91, 1))], bar, limits)
    assert figures["score_diff"] == 0.01 and figures["corner_diff"] == 2
    _, faults = judge.compared([detections()], [detections()], bar, limits)
    assert "nothing to compare" in faults[0]


def test_what_threads_and_memory_are_judged_by(
    doubles: Doubles, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.threads(subject, 2)["differ"] == 0
    sizes = iter([100, 100, 100, 200])
    monkeypatch.setattr(checks, "_memory", lambda: {"host MB": next(sizes), "GPU MB": 5})
    assert checks.endurance(subject, first=3)["frames"] == 1
    with pytest.raises(Incomplete) as caught:
        checks.endurance(subject, first=3)
    assert caught.value.figures[FAULTS] == ["host MB grew by 100, at most 16 is taken for noise"]
    real, calls = Detector.__call__, list[int]()

    def forgetful(detect: Detector, image: Any, **other: Any) -> Any:
        calls.append(1)
        return detections() if len(calls) == 4 else real(detect, image, **other)

    monkeypatch.setattr(Detector, "__call__", forgetful)
    with pytest.raises(Incomplete) as caught:
        checks.threads(subject, 2)
    assert caught.value.figures[FAULTS] == ["1 results differ from one thread's, none shall"]


def test_throughput_loads_an_engine_once(doubles: Doubles, subject: Subject) -> None:
    """Each load may compile its kernels anew."""
    figures = checks.throughput(subject)
    assert set(figures) == {"batch 1", "batch 2"} and len(doubles.made) == 1
    assert set(figures["batch 2"]) == {*(f"{n} contexts" for n in (1, 2, 3, 4)), "device only"}
    assert figures["batch 2"]["device only"] > 0


def test_the_device_alone_does_not_wait_for_the_host(doubles: Doubles, subject: Subject) -> None:
    with doubles.detector(Path("e"), contexts=2) as detect:
        checks._warm(detect, [subject.picture()], 2)
        (cuda,), runner = doubles.made, detect.runner
        frames, _ = detect.info.resize.apply([subject.picture()])
        before = len(cuda.log)
        assert runner.device_rate(frames, 5) > 0  # type: ignore[attr-defined]
        steps = cuda.log[before:]
        assert steps.count("launch") == 2 * 5 * 2  # lanes, rounds, an engine and a download
        assert steps[-2:] == ["wait", "wait"] and steps.count("wait") == 2
        assert len(detect(subject.picture())) > 0  # the lanes are back


def test_the_first_runs_are_timed_with_and_without_kept_kernels(
    doubles: Doubles, subject: Subject
) -> None:
    figures = checks.load_and_run(subject)
    assert figures["detections"] > 0 and len(doubles.made) == 3
    assert {"first run s", "first run s, keeps kernels", "first run s, has kernels"} <= set(figures)


def test_why_an_engine_is_refused(tmp_path: Path, model_path: Path, monkeypatch: Any) -> None:
    """On a double of TensorRT-RTX's question; the real module has these names."""
    engine = tmp_path / "m.engine"
    engine.write_bytes(PLAN)
    engine_json(engine).write_text(engine_info(model_path).to_json())
    subject = Subject(engine=engine, images=())
    trt: Any = FakeTensorRT(model_path, RecordingCuda())
    monkeypatch.setattr(checks, "load_tensorrt", lambda _: trt)
    trt.Runtime = lambda log: SimpleNamespace()
    assert "has no such question" in checks.validity(subject)["not asked"]
    kinds = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4}
    members = {name: SimpleNamespace(value=value) for name, value in kinds.items()}
    trt.EngineInvalidityDiagnostics = SimpleNamespace(__members__=members)
    answers = [("VALID", 0), ("SUBOPTIMAL", 0), ("INVALID", 6)]

    def ask(plan: bytes) -> tuple[Any, int]:
        assert plan == PLAN
        name, flags = answers.pop(0)
        return SimpleNamespace(name=name), flags

    trt.Runtime = lambda log: SimpleNamespace(get_engine_validity=ask)
    assert [checks.validity(subject)["engine"] for _ in range(2)] == ["VALID", "SUBOPTIMAL"]
    with pytest.raises(Incomplete) as caught:
        checks.validity(subject)
    assert caught.value.figures["why"] == ["UNSUPPORTED_CC", "OLD_CUDA_DRIVER"]
    if not installed("tensorrt-rtx"):
        pytest.skip("TensorRT-RTX is not installed: its names are not compared")
    real: Any = load_tensorrt("tensorrt-rtx")
    assert hasattr(real.Runtime, "get_engine_validity") and real.EngineValidity.INVALID.name
    assert real.EngineInvalidityDiagnostics.__members__.keys() >= kinds.keys()


def test_ties_are_free_where_their_order_is(tiny_path: Path, scenes: Path) -> None:
    """Runs of EfficientNMS on scores of an FP16 network; the judge of the plugin refuses them."""
    info, model = read_info(tiny_path), onnx.load(tiny_path)
    model.graph.output.extend(map(helper.make_empty_tensor_value_info, CANDIDATES))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = map(read_image, list_images(str(scenes / "images")))
    boxes, exact = session.run(CANDIDATES, {INPUT: info.resize.apply(list(images))[0]})
    logits = np.log(exact / (1 - exact)).astype(np.float16).astype(np.float32)
    scores = np.asarray(1 / (1 + np.exp(-logits)), np.float32)

    def run(seed: int) -> list[Detections]:
        attributes: dict[str, Any] = plugin_attributes(info)
        outputs = efficient_nms(boxes, scores, **attributes, seed=seed)
        return from_outputs(*outputs, info.thresholds)

    first, differ = run(0), 0
    for seed in range(1, 9):
        again = run(seed)
        assert judge.repeated(first, again, "efficient", info.thresholds)[1] == []
        differ += bool(judge.repeated(first, again, "plugin", info.thresholds)[1])
    assert differ > 0
    fewer = [dataclasses.replace(d, xyxy=d.xyxy + 9) for d in first]
    assert judge.repeated(first, fewer, "efficient", info.thresholds)[1] != []


def test_the_warm_up_reaches_every_context(doubles: Doubles, subject: Subject) -> None:
    with doubles.detector(Path("e"), contexts=2) as detect:
        checks._warm(detect, [subject.picture()], 2)
        (cuda,) = doubles.made
        assert cuda.count("make graph") == 2  # a lane of which is run, captured and replayed
        assert cuda.count("execute") == 2
        assert cuda.count("launch") == 2 * 2 * 2
