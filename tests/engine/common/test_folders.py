"""Folders for output: made, checked, taken back after a failure, and used by one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from retinart.engine.common import folders
from retinart.engine.common.folders import (
    LOCK_NAME,
    make_folder,
    new_folder,
    own_folder,
    results_folder,
)
from retinart.engine.common.leftovers import lock
from retinart.engine.errors import BadInput
from support import ROOT, files_below

_HOLD = """
import sys, time
from pathlib import Path
from retinart.engine.common.folders import own_folder
with own_folder(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


def _fail_halfway(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def test_a_failure_takes_back_the_folders_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "old/new/newer"):
        _fail_halfway(tmp_path / "old/new/kept.txt")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept.txt", "new", "old"]
    with pytest.raises(ZeroDivisionError), own_folder(tmp_path / "other"):
        raise ZeroDivisionError
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept.txt", "new", "old"]


def results(out: Path | None, default: Path, **more: bool) -> Path:
    with results_folder(out, default, ["a.json", "b.json"], **more) as folder:
        (folder / "b.json").touch()
        return folder


def test_a_folder_of_results_is_numbered_refused_or_overwritten(tmp_path: Path) -> None:
    default = tmp_path / "runs" / "detect"
    made = [results(None, default).name for _ in range(3)]
    assert made == ["detect", "detect2", "detect3"]
    assert results(None, default, overwrite=True) == default
    with pytest.raises(BadInput, match="holds the results of another run"):
        results(default, tmp_path / "other")
    assert results(default, tmp_path / "other", overwrite=True) == default
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").touch()
    assert results(mine, default) == mine
    with pytest.raises(BadInput, match="cannot write to the folder"):
        results(None, mine / "notes.txt" / "detect")


@pytest.mark.parametrize("out", [None, "given"])
def test_a_run_without_results_leaves_no_folder(tmp_path: Path, out: str | None) -> None:
    given, default = tmp_path / out if out else None, tmp_path / "runs" / "detect"
    with pytest.raises(ZeroDivisionError), results_folder(given, default, ["a.json"]) as folder:
        raise ZeroDivisionError(folder)
    assert list(tmp_path.iterdir()) == []


def test_make_folder_names_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"cannot write to the folder .*file: File exists\. Choose"):
        make_folder(tmp_path / "file")
    with pytest.raises(BadInput, match=r"Not a directory\. Choose another output folder"):
        make_folder(tmp_path / "file" / "below")


def test_a_folder_has_one_user_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with own_folder(out):
        with pytest.raises(BadInput, match=r"process \d+ on .* is writing to it\. Wait until"):
            own_folder(out).__enter__()
        assert files_below(out) == [LOCK_NAME]
    assert files_below(out) == []
    with own_folder(out):
        pass


def test_the_lock_of_a_killed_process_counts_for_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            with pytest.raises(BadInput, match=f"process {child.pid} on "):
                own_folder(tmp_path).__enter__()
        finally:
            child.send_signal(signal.SIGKILL)
    assert files_below(tmp_path) == [LOCK_NAME]  # it could not remove it
    with own_folder(tmp_path):
        pass
    assert files_below(tmp_path) == []


def test_two_processes_that_start_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one has locked the folder, and says who it is while the other one waits."""
    handle = os.open(tmp_path / LOCK_NAME, os.O_CREAT | os.O_RDWR)
    lock(handle)
    wait = SimpleNamespace(sleep=lambda _: os.write(handle, b"process 7 on host\n"))
    monkeypatch.setattr(folders, "time", wait)
    with pytest.raises(BadInput, match="process 7 on host is writing to it"):
        own_folder(tmp_path).__enter__()
    os.close(handle)
