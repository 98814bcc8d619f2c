"""Closed and full standard streams: the work is done, and what could not be said is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT, files_below

_COMMAND = f"exec {sys.executable} -m retinart"


def _run(words: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'{_COMMAND} "$@" {words}', "sh", *map(str, arguments)],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_closed_streams_do_not_fail_a_job(
    model_path: Path, images: Path, tmp_path: Path, closed: str
) -> None:
    """With stderr closed, the next file that is opened would have got messages of libraries."""
    done = _run(closed, "detect", model_path, images, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "detections.jsonl").read_text()
    assert lines.startswith("{") and lines.endswith("}\n")
    assert ("detections.jsonl" in done.stdout) == (" >&-" not in f" {closed}")


def test_a_full_stdout_is_an_error_and_the_files_stay(
    model_path: Path, images: Path, tmp_path: Path
) -> None:
    done = _run(">/dev/full", "detect", model_path, images, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "cannot write to standard output: No space left on device. Lead it to" in done.stderr
    assert "summary.json" in files_below(tmp_path / "out")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_full_stdout_is_an_error_of_help_too(option: str) -> None:
    done = _run(">/dev/full", option)
    assert done.returncode == 2
    assert done.stderr.startswith("retinart: cannot write to standard output: No space left")


def test_help_whose_reader_has_gone_away() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        command = [sys.executable, "-m", "retinart", "--help"]
        done = subprocess.run(
            command, cwd=ROOT / "tests", stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
