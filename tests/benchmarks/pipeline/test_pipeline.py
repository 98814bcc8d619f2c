"""The pipeline's benchmark: that it runs and that its counts agree; its times are not judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retinart.benchmarks.pipeline.__main__ import main
from support import narrow, write_video


def _run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[str, Any]:
    out = Path(str(arguments[-1]))
    assert main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out, json.loads(out.read_text())


def test_a_job_against_inference_alone(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, more = write_video(tmp_path / "v.mp4"), ["--frames", "8", "--turns", "2"]
    said, (result,) = _run(
        capsys, model_path, "--video", video, *more, "--out", tmp_path / "r.json"
    )
    assert [len(rates) for rates in result["rates"].values()] == [2, 2, 2]
    assert result["last_job"]["frames"]["written"] == 8
    for ratio in result["ratio_to"].values():
        assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert "| the job's rate to it, by turn |" in narrow(said) and "waiting before: " in said


def test_live_and_long(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "v.mp4", size=(240, 320))
    said, (live,) = _run(
        capsys, model_path, "--video", video, "--live", "1.5", "--out", tmp_path / "r.json"
    )
    assert live["counted_exactly"] and live["read"] == live["sent"] > live["detected"] > 0
    assert "| counted exactly | True |" in narrow(said)
    said, (long,) = _run(
        capsys, model_path, "--video", video, "--long", "150", "--out", tmp_path / "r.json"
    )
    assert long["frames"] == 150 and long["footprint"]["rss_mib_last_tenth"] > 0


def test_a_video_that_is_not_there(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model_path), "--video", str(tmp_path / "none.mp4")]) == 2
    assert capsys.readouterr().err.startswith("error: there is no video at ")
