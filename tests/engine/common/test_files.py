"""A file appears whole under its name, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinart.engine.common.files import atomic_path, make_folder, new_folder, remove_unfinished
from retinart.engine.errors import BadInput
from support import files_below


def _fail_halfway(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def test_atomic_path(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole" and target.stat().st_mode & 0o111 == 0
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        _fail_halfway(temporary)
    assert files_below(tmp_path) == ["new/a.txt"] and target.read_text() == "whole"


def test_names_at_the_file_systems_limit(tmp_path: Path) -> None:
    with atomic_path(tmp_path / f"{'n' * 251}.png") as temporary:
        temporary.write_text("x")
    assert files_below(tmp_path) == [f"{'n' * 251}.png"]
    with (
        pytest.raises(BadInput, match=r"cannot write .*: File name too long\."),
        atomic_path(tmp_path / f"a.{'n' * 300}"),
    ):
        raise AssertionError("not reached")


def test_the_mode_is_the_umasks_and_the_umask_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.umask sets the umask to read it; other threads would make files meanwhile."""
    (tmp_path / "plain").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "umask", None)
        with atomic_path(tmp_path / "a.txt"):
            pass
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failure_takes_back_the_folders_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "old/new/newer/a.txt") as path:
        _fail_halfway(path)
    assert [p.name for p in tmp_path.rglob("*")] == ["old"]
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "old/new/newer"):
        _fail_halfway(tmp_path / "old/new/kept.txt")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept.txt", "new", "old"]


def test_make_folder_names_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"cannot write to the folder .*file: File exists\. Choose"):
        make_folder(tmp_path / "file")
    with pytest.raises(BadInput, match=r"Not a directory\. Choose another output folder"):
        make_folder(tmp_path / "file" / "below")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    keep = ["last.pt", ".gitignore", ".0123.pt", "0123456789abcdef.pt"]
    for name in (*keep, ".0123456789abcdef.pt", ".fedcba9876543210"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(keep)
    with atomic_path(tmp_path / "a.pt") as temporary:  # a temporary name of atomic_path matches
        remove_unfinished(tmp_path)
        assert not temporary.exists()
        temporary.touch()
