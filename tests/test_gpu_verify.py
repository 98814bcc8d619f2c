"""The script that verifies on a GPU runs on a CPU as far as its first call of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinart.benchmarks.gpu import verify
from retinart.benchmarks.gpu.models import PRECISIONS
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


def test_a_step_that_fails_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    steps = verify.Steps()
    assert steps.run("good", lambda: {"ms": 1}) == {"ms": 1}
    assert steps.run("bad", lambda: 1 / 0) is None
    steps.skip("later", "no GPU")
    assert [steps.count(s) for s in ("done", "FAILED", "skipped")] == [1, 1, 1]
    assert "FAILED" in (said := capsys.readouterr().out) and "ZeroDivisionError" in said
