"""A file appears whole under its name, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from retinart.engine.common.files import (
    AtomicFile,
    atomic_path,
    make_folder,
    new_folder,
    remove_unfinished,
    results_folder,
    write_json,
)
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


def test_an_atomic_file_is_committed_or_discarded(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "new" / "a.txt")
    assert files_below(tmp_path) == [f"new/{file.temporary.name}"]
    file.temporary.write_text("whole")
    file.commit()
    file.discard()  # too late: it stays
    assert files_below(tmp_path) == ["new/a.txt"]
    other = AtomicFile(tmp_path / "new" / "a.txt")
    other.temporary.write_text("half")
    other.discard()
    other.discard()
    assert files_below(tmp_path) == ["new/a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"
    AtomicFile(tmp_path / "newer" / "below" / "a.txt").discard()
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_a_file_that_cannot_be_renamed_is_deleted(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "a.txt")
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        file.commit()
    assert files_below(tmp_path) == []


def test_a_folder_in_the_files_place_is_seen_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(BadInput, match=r"cannot write .*a\.txt: it is a folder\. Choose another"):
        AtomicFile(tmp_path / "a.txt")
    (tmp_path / "b").touch()
    with pytest.raises(BadInput, match=r"cannot write to the folder .*: Not a directory\. Choose"):
        AtomicFile(tmp_path / "b" / "c" / "d.txt")
    assert files_below(tmp_path) == ["b"]


def test_an_atomic_file_makes_one_file_and_no_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of 10,000 pictures was probed 10,000 times, with a file each."""
    made: list[str] = []
    real = os.open

    def count(path: str, flags: int, mode: int = 0o777) -> int:
        made.append(path)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", count)
    AtomicFile(tmp_path / "a.txt").discard()
    assert len(made) == 1


def test_json(tmp_path: Path) -> None:
    content = {"name": "caf\udce9", "n": [1, 2.5, None]}
    write_json(tmp_path / "a.json", content, indent=1)
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")
    assert json.loads((tmp_path / "a.json").read_text()) == content
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", {"value": object()})
    assert files_below(tmp_path) == ["a.json"]


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
