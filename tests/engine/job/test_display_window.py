"""`--show`: what is said where there is no window, and the picture where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import pytest

from retinart.engine.detector import Detector
from retinart.engine.errors import MissingDependency
from retinart.engine.job.display_window import Window, has_windows
from retinart.engine.job.job import run_job
from retinart.engine.job.settings import DetectJob
from support import files_below, write_video


def test_this_opencv_has_no_window_and_says_so(
    retinart: Callable[..., CompletedProcess[str]], model_path: Path, video: Path, tmp_path: Path
) -> None:
    if has_windows():
        pytest.skip("this OpenCV has windows")
    ran = retinart("detect", model_path, video, "--show", "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith(
        "retinart: a window cannot be opened: opencv-python-headless, which comes with retinart, "
        "cannot open windows. Run `pip uninstall opencv-python-headless` and `pip install "
        "opencv-python`"
    )
    assert not (tmp_path / "out").exists()


def test_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinart.engine.job.display_window.has_windows", lambda: True)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MissingDependency, match="there is no screen: neither DISPLAY nor WAYLAND"):
        Window("x")


def test_frames_are_shown_until_a_key_is_pressed(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, ...]] = []
    monkeypatch.setattr("retinart.engine.job.display_window.has_windows", lambda: True)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda ms: ord("q") if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "destroyWindow", lambda title: shown.append(()))
    source = str(write_video(tmp_path / "clip.avi", frames=200))
    job = DetectJob(source=source, out=tmp_path / "out", show=True, copies=False)
    with Detector(model_path) as detector:
        summary = run_job(detector, job)
    assert shown == [(96, 128, 3)] * 3 + [()]
    assert summary.interrupted and summary.stop_reason == "the window was closed"
    assert 3 <= summary.frames < 200
    assert files_below(tmp_path / "out") == ["detections.jsonl", "summary.json"]
