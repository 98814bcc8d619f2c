"""The script that verifies on a GPU runs on a CPU as far as its first call of one."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path

import pytest

from retinart.benchmarks.gpu import verify
from retinart.benchmarks.gpu.models import PRECISIONS
from retinart.benchmarks.gpu.steps import NO_TIME, Steps
from retinart.benchmarks.gpu.worker import Incomplete, Lost, Worker
from retinart.engine.errors import BadInput
from retinart.engine.gpu import find_gpus
from retinart.engine.tensorrt_api import installed


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


def part() -> None:
    raise Incomplete({"no graph": {"ms": 1}, "graph": "CudaError: 900"})


def test_results_are_written_after_every_step_and_a_later_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    first, ran = Steps(out), list[str]()
    first.run("one", lambda: 1)
    first.value("two", lambda: 2)
    first.run("three", lambda: 1 / 0)
    first.run("part", part)
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
            worker.call(part)
        assert caught.value.figures["graph"] == "CudaError: 900"
    finally:
        worker.close()
    short = Worker(0.5)
    with pytest.raises(Lost, match=r"stopped after 0\.5 s"):
        short.call(partial(time.sleep, 60))
    short.close()
