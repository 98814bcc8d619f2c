"""The script that verifies on a GPU runs on a CPU as far as its first call of one."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import PLAN, FakeTensorRT, engine_info

from recording_gpu import RecordingCuda
from retinart.benchmarks.gpu import checks, verify
from retinart.benchmarks.gpu.models import PRECISIONS
from retinart.benchmarks.gpu.steps import NO_TIME, Steps
from retinart.benchmarks.gpu.worker import Incomplete, Lost, Worker
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.gpu import find_gpus
from retinart.engine.images import Image
from retinart.engine.tensorrt_api import installed
from retinart.engine.tensorrt_runner import TensorRTRunner
from retinart.engine.timing import StageClock
from support import make_picture


def test_it_runs_to_the_first_call_of_a_gpu(
    noisy_checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_gpus() or not installed("tensorrt-rtx"):
        pytest.skip("this is about a machine without a GPU, with TensorRT-RTX")
    out, models = tmp_path / "result.json", tmp_path / "models"
    arguments = ["--checkpoint", noisy_checkpoint, "--images", images, "--models", models]
    arguments += ["--imgsz", "96", "--num-images", "2", "--out", out, "--backbones"]
    assert verify.main([str(a) for a in arguments]) == 3
    results = json.loads(out.read_text())
    states = {name: step["state"] for name, step in results.items()}
    assert states["environment"] == "done" and "FAILED" not in states.values()
    for precision in PRECISIONS:
        title = f"given at 96, {precision}"
        assert states[f"build {title}"] == states[f"reference of {title}"] == "done"
        for name in (
            "detections against OpenVINO's",
            "8 threads",
            "latency",
            "throughput",
            "streams",
            "memory",
        ):
            assert results[f"{name}, {title}"]["result"] == verify.NO_GPU
    assert states["torch.compile FP16, given at 96"] == "skipped"
    said = capsys.readouterr().out
    assert "0 failed, 25 skipped" in said and "detections on 2 images" in said

    assert verify.main([str(a) for a in arguments]) == 3  # nothing is done twice
    assert json.loads(out.read_text()) == results
    again = capsys.readouterr().out
    assert "0 failed, 25 skipped" in again and "build" not in again and "reference" not in again
    assert verify.main([str(a) for a in [*arguments, "--num-images", "1"]]) == 2
    assert "is of another images" in capsys.readouterr().err


def test_a_step_that_fails_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    assert steps.run("good", lambda: {"ms": 1}) == {"ms": 1}
    assert steps.run("bad", lambda: 1 / 0) is None
    steps.skip("later", "no GPU")
    assert [steps.count(s) for s in ("done", "FAILED", "skipped")] == [1, 1, 1]
    assert "FAILED" in (said := capsys.readouterr().out) and "ZeroDivisionError" in said


def interrupt() -> None:
    raise KeyboardInterrupt


# Work whose graph failed; a worker's process cannot import this module, as tests are no package.
incomplete_work = partial(
    exec,
    "from retinart.benchmarks.gpu.worker import Incomplete\n"
    "raise Incomplete({'no graph': {'ms': 1}, 'graph': 'CudaError: 900'})",
    {},
)


def test_results_are_written_after_every_step_and_a_later_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    first, ran = Steps(out), list[str]()
    first.run("one", lambda: 1)
    first.value("two", lambda: 2)
    first.run("three", lambda: 1 / 0)
    first.run("part", incomplete_work)
    with pytest.raises(KeyboardInterrupt):
        first.run("four", interrupt)
    found = json.loads(out.read_text())
    assert [found[k]["state"] for k in found] == ["done", "done", "FAILED", "FAILED"]
    assert found["part"]["result"] == {"no graph": {"ms": 1}, "graph": "CudaError: 900"}

    later = Steps(out)
    assert [later.over(n) for n in ("one", "three", "four")] == [True, True, False]

    def again() -> int:
        ran.append("two")
        return 2

    two = later.value("two", again)
    assert ran == []  # as nobody asked
    assert (two(), two(), ran) == (2, 2, ["two"])
    assert later.value("three", lambda: 3)() is None  # it has failed, and is left at that
    assert Steps(out, retry=True).value("three", lambda: 3)() == 3
    assert later.value("five", lambda: 5, after=lambda: None)() is None
    late = Steps(out, seconds=-1)
    assert late.run("six", lambda: 6) is None
    assert late.results["six"]["result"] == NO_TIME
    out.write_text("[1]")
    with pytest.raises(BadInput, match="no file of this script's"):
        Steps(out)


def test_a_worker_outlives_what_it_does() -> None:
    worker = Worker(30)
    try:
        first = worker.call(os.getpid)
        assert first == worker.call(os.getpid) != os.getpid()
        with pytest.raises(Lost, match="its process died with exit code -11"):
            worker.call(partial(os.kill, first, 11)) or worker.call(os.getpid)
        with pytest.raises(Lost, match="ValueError: invalid literal"):
            worker.call(partial(int, "x"))
        assert worker.call(os.getpid) != first
        with pytest.raises(Incomplete) as caught:
            worker.call(incomplete_work)
        assert caught.value.figures["graph"] == "CudaError: 900"
    finally:
        worker.close()
    short = Worker(0.5)
    with pytest.raises(Lost, match=r"stopped after 0\.5 s"):
        short.call(partial(time.sleep, 60))
    short.close()


class Doubles:
    """A detector whose engine runs on doubles of TensorRT and CUDA, which are no GPU."""

    def __init__(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.captures, self.made = model, True, list[RecordingCuda]()
        monkeypatch.setattr(checks, "Detector", self.detector)
        monkeypatch.setattr(checks, "load_engine", self.load)
        monkeypatch.setattr(checks, "read_engine_info", lambda path: engine_info(model, 32))

    def load(self, path: Path, info: Any, **settings: Any) -> TensorRTRunner:
        self.made.append(cuda := RecordingCuda(captures=self.captures))
        doubles: Any = {"trt": FakeTensorRT(self.model, cuda), "cuda": cuda}
        return TensorRTRunner(PLAN, engine_info(self.model, 32), **doubles, **settings)

    def detector(self, path: Path, **settings: Any) -> Detector:
        detect = Detector(self.model, runtime="onnxruntime")
        detect._runner = self.load(path, None, **settings)
        return detect


@pytest.fixture
def doubles(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doubles:
    return Doubles(model_path, monkeypatch)


@pytest.fixture
def picture() -> Image:
    return make_picture(0, 96, 128)


def test_plain_launches_in_the_place_of_graphs_fail(
    doubles: Doubles, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        TensorRTRunner,
        "device_ms",
        lambda runner, frames: (
            runner.start(frames, [(96, 128)], runner._info.model.thresholds, StageClock())() and 1.0
        ),
    )
    monkeypatch.setattr(checks, "WARM", 1)
    good = checks.latency(Path("e"), picture, repeats=2)
    assert set(good) == {"no graph", "graph"} and set(good["graph"]) == {"device", "end to end"}
    doubles.captures = False
    with pytest.raises(Incomplete) as caught:
        checks.latency(Path("e"), picture, repeats=2)
    figures = caught.value.figures
    assert figures["no graph"].keys() == good["no graph"].keys()
    assert "(900)" in figures["graph"]["plain launches, for want of a graph"]


def test_a_variant_that_fails_leaves_the_others(
    doubles: Doubles, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    with doubles.detector(Path("e")) as detect:
        want = [detect(picture)]
    real = doubles.detector

    def no_gpu_resize(path: Path, **settings: Any) -> Detector:
        if settings["gpu_resize"]:
            raise RuntimeError("nvcc fatal")
        return real(path, **settings)

    monkeypatch.setattr(checks, "Detector", no_gpu_resize)
    with pytest.raises(Incomplete) as caught:
        checks.compare(Path("e"), [picture], want)
    figures = caught.value.figures
    found = {"matched": len(want[0]), "missing": 0, "extra": 0}
    assert figures["no graph"] == figures["graph"] == found
    assert figures["GPU resize"] == "RuntimeError: nvcc fatal"


def test_the_warm_up_reaches_every_context(doubles: Doubles, picture: Image) -> None:
    with doubles.detector(Path("e"), contexts=2) as detect:
        checks._warm(detect, [picture], 2)
        (cuda,) = doubles.made
        assert cuda.count("make graph") == 2  # a lane of which is run, captured and replayed
        assert cuda.count("execute") == 2
        assert cuda.count("launch") == 2 * 2 * 2


def test_memory_is_that_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory(RecordingCuda):
        def memory(self) -> tuple[int, int]:
            self.check()  # the context is current
            return 1 << 30, 3 << 30

    monkeypatch.setattr(checks, "PyCuda", Memory)
    much = np.ones(200 << 20, np.uint8)
    with_it = checks._memory()
    del much
    without = checks._memory()
    assert with_it["GPU MB"] == 2048
    assert 150 < with_it["host MB"] - without["host MB"] < 250  # the peak would be the same
