"""Closed and full standard streams: the work is done, and what could not be said is told."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retinart.cli.streams import guarded_streams
from retinart.engine.common.progress import CLEAR
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
    assert "cannot write to standard output: No space left on device. Send it to" in done.stderr
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


def test_names_of_strangers_do_not_command_the_terminal(tmp_path: Path) -> None:
    """Nor fill it: a name can be endless."""
    path = tmp_path / "\x1b[2J\r\u202e.onnx"
    path.write_bytes(b"x")
    done = _run("", "inspect", path)
    assert done.returncode == 2 and r"\x1b[2J\r\u202e.onnx" in done.stderr
    done = _run("", "make-scenes", tmp_path, "--num", "\x1b[2J")
    assert done.returncode == 2 and r"\x1b[2J" in done.stderr and "\x1b" not in done.stderr
    areas = tmp_path / "areas.json"
    areas.write_text(
        '{"size": [9, 9], "lines": [{"name": "%s", "start": [1, 1], "end": [1, 1]}]}'
        % ("x" * 100_000)
    )
    done = _run("", "detect", path, tmp_path, "--region", areas)
    assert done.returncode == 2 and "…" in done.stderr and len(done.stderr) < 5000


def test_a_terminal_shows_names_as_escapes_and_bars_as_bars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("stdout", "stderr"):
        terminal, pipe = Terminal(), io.StringIO()
        monkeypatch.setattr(sys, name, terminal)
        with guarded_streams():
            getattr(sys, name).write(f"{CLEAR}a\x1b[2J\n")
        assert terminal.getvalue() == f"{CLEAR}a\\x1b[2J\n"
        monkeypatch.setattr(sys, name, pipe)
        with guarded_streams():
            getattr(sys, name).write("a\x1b[2J\n")  # a path that another program reads
        assert pipe.getvalue() == ("a\x1b[2J\n" if name == "stdout" else "a\\x1b[2J\n")


@pytest.mark.parametrize(
    "words",
    [
        ("detect", "a.onnx", "--view", "rtsp://me:a 'SECRET@host/x"),
        ("detect", "a.onnx", "a.png", "--max-fps", "http://host/x?token=SECRET"),
        ("detect", "a.onnx", "--nope=http://me:SECRET@host/x", "a.png"),
        ("inspect", "http://me:SECRET@host/x.onnx"),
        ("http://me:SECRET@host/",),
        ("detect", "model.onnx", "http:me:SECRET@host"),
        ("detect", "model.onnx", "http:/me:SECRET@host/x.mp4"),
    ],
)
def test_addresses_in_the_wrong_place_show_no_secrets(words: tuple[str, ...]) -> None:
    """The messages of argparse hold the word as it was given, and a path has one slash."""
    done = _run("", *words)
    assert done.returncode == 2 and "host" in done.stderr and "SECRET" not in done.stderr
