"""Progress on a terminal and in a log: what is shown, and what is left at the end."""

from __future__ import annotations

import io
import sys

import pytest

from retinart.engine.common.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_short_job_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its result is the next line; "1/1 images 0 s left" before it told nothing."""
    shown = Progress()
    for done in range(1, 4):
        shown.update(done, 3, "images")
    assert capsys.readouterr().err == ""

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr("retinart.engine.common.progress.time.perf_counter", lambda: 0.0)
    shown = Progress()
    monkeypatch.setattr("retinart.engine.common.progress.time.perf_counter", lambda: 1.0)
    shown.update(1, 2, "images")
    shown.update(2, 2, "images")
    bar = "[###############...............] 1/2 images"
    assert terminal.getvalue() == f"\r\x1b[K{bar}\r\x1b[K"


def test_no_time_left_is_shown_before_it_means_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loading and the first image counted, so an evaluation of minutes began with "900 s left"."""
    now = [0.0]
    monkeypatch.setattr("retinart.engine.common.progress.time.perf_counter", lambda: now[0])
    shown = Progress()
    for seconds, done in ((60, 1), (71, 2), (72, 3), (82, 4), (93, 15)):
        now[0] = float(seconds)
        shown.update(done, 400, "images")
    assert capsys.readouterr().err.splitlines() == [
        "1/400 images",
        "2/400 images",
        "4/400 images",
        "15/400 images 908 s left",  # 14 images in 33 s after the first one
    ]
