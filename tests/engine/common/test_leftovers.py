"""What a killed process leaves is removed by the next one; what a living one writes stays."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from retinart.engine.common import leftovers
from retinart.engine.common.files import AtomicFile, atomic_path
from retinart.engine.common.leftovers import remove_leftovers, temporary_name
from support import ROOT, files_below

_WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from typing import Any
from retinart.engine.common.files import AtomicFile, atomic_folder
file = AtomicFile(Path(sys.argv[1]) / "model.onnx")
file.temporary.write_text("half")
with atomic_folder(Path(sys.argv[1]) / "scenes") as folder:
    (folder / "picture.png").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process looks through a folder once; these tests want each look."""
    monkeypatch.setattr(leftovers, "_swept", set())


def test_the_files_of_a_killed_process_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITE_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            assert len(files_below(tmp_path)) == 2
            remove_leftovers(tmp_path)
            assert len(files_below(tmp_path)) == 2  # it lives
        finally:
            child.send_signal(signal.SIGKILL)
    leftovers._swept.clear()
    with atomic_path(tmp_path / "model.onnx") as temporary:
        temporary.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_only_files_of_ours_go(tmp_path: Path) -> None:
    keep = ["last.pt", ".gitignore", ".0123456789abcdef.pt", ".retinart-0123.pt", ".retinart.lock"]
    ours = [temporary_name(tmp_path, ".pt").name, temporary_name(tmp_path).name]
    for name in (*keep, *ours):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(keep)


def test_a_folder_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold 100,000 pictures, and each of them is an `AtomicFile`."""
    looks: list[Path] = []
    real = os.scandir

    def look(path: Path) -> Any:
        looks.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", look)
    for _ in range(3):
        AtomicFile(tmp_path / "a.png").discard()
    assert looks == [tmp_path]


def test_a_file_that_is_taken_for_a_leftover_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = fcntl.flock, list[Path]()

    def late(handle: int, how: int) -> None:
        if not taken:
            taken.append(Path(f"/proc/self/fd/{handle}").readlink())
            taken[0].unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.exists()
        temporary.write_text("whole")
    assert taken and (tmp_path / "a.txt").read_text() == "whole"


def test_without_locks_age_tells_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    new, old = temporary_name(tmp_path), temporary_name(tmp_path)
    for path in (new, old):
        path.touch()
    os.utime(old, (time.time() - 100_000,) * 2)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [new]
