"""`retinart detect` that a service manager starts again, and that runs for weeks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from retinart.engine.common import utc
from support import files_below

Command = Callable[..., CompletedProcess[str]]


def test_the_same_command_starts_again(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen: after a crash, each start of a fixed --out ended with 2."""
    starts = [datetime(2026, 11, 29, 16, 42, second, tzinfo=timezone.utc) for second in (0, 9)]
    words = [model_path, images / "0.png", "--no-copies", "--out", tmp_path / "out" / "{start}"]
    words += ["--csv", tmp_path / "out" / "rows-{start}.csv"]
    for start in starts:
        monkeypatch.setattr(utc, "now", lambda start=start: start)
        ran = retinart("detect", *words)
        assert ran.returncode == 0, ran.stderr
    names = ["20261129T164200Z", "20261129T164209Z"]
    lines = [f"{n}/{file}" for n in names for file in ("detections.jsonl", "summary.json")]
    assert files_below(tmp_path / "out") == sorted(
        [*lines, *(f"rows-{name}.csv" for name in names)]
    )
    again = retinart("detect", *words)  # in the second of the last start
    assert again.returncode == 2 and f"{names[1]} holds the results of another run" in again.stderr
    ran = retinart("detect", *words, "--ray")
    assert ran.returncode == 2 and ran.stderr == (
        "retinart: --out has {start}, and Ray does the work: with --ray, the same command goes on "
        "in the folder of the job that ended. Give a folder without {start}.\n"
    )
