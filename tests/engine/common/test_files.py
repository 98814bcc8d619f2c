"""A file appears whole under its name, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from retinart.engine.common.files import (
    AtomicFile,
    atomic_folder,
    atomic_pair,
    atomic_path,
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


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    """`--csv /dev/full` replaced the device by a file, where root ran it."""
    os.mkfifo(tmp_path / "a.csv")
    (tmp_path / "b.csv").symlink_to("/dev/full")
    for name, kind in (("a.csv", "a named pipe"), ("b.csv", "a device")):
        with pytest.raises(BadInput, match=rf"cannot write .*{name}: it is {kind}\."):
            AtomicFile(tmp_path / name)
    assert (tmp_path / "a.csv").is_fifo() and len(list(tmp_path.iterdir())) == 2


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


def test_the_disk_has_a_file_before_its_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must not leave an empty file under the final name."""
    (tmp_path / "a.txt").write_text("old")
    seen: list[tuple[str, str]] = []
    real = os.fsync

    def sync(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        seen.append((name, (tmp_path / "a.txt").read_text()))
        real(handle)

    monkeypatch.setattr(os, "fsync", sync)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert seen == [(temporary.name, "old"), (tmp_path.name, "new")]
    with atomic_path(tmp_path / "a.txt", durable=False) as temporary:
        temporary.write_text("newer")
    assert len(seen) == 2


def _put_a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("old", [None, "old"])
def test_a_pair_gets_its_names_together_or_not_at_all(tmp_path: Path, old: str | None) -> None:
    model, record = tmp_path / "model.onnx", tmp_path / "model.json"
    if old:
        model.write_text(old)
        record.write_text(old)
    before = files_below(tmp_path)
    with pytest.raises(ZeroDivisionError), atomic_pair(model, record) as (first, _):
        _fail_halfway(first)
    assert files_below(tmp_path) == before
    with pytest.raises(IsADirectoryError), atomic_pair(model, record) as (first, _):
        _put_a_folder(record)  # now the second one cannot be renamed
    record.rmdir()
    assert (model.read_text() if model.exists() else None) == old
    with atomic_pair(model, record) as (first, second):
        first.write_text("new model")
        second.write_text("new record")
    assert (model.read_text(), record.read_text()) == ("new model", "new record")
    assert files_below(tmp_path) == ["model.json", "model.onnx"]


def test_a_folder_appears_whole_with_the_umasks_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with atomic_folder(tmp_path / "new" / "out") as temporary:
        (temporary / "a.txt").write_text("whole")
        assert not (tmp_path / "new" / "out").exists()
    assert files_below(tmp_path) == ["new/out/a.txt"]
    assert (tmp_path / "new" / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "other") as temporary:
        _fail_halfway(temporary / "a.txt")
    assert files_below(tmp_path) == ["new/out/a.txt"]


def test_a_folder_that_another_process_fills_meanwhile(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_folder(tmp_path / "scenes") as temporary:
            (temporary / "a").touch()
            (tmp_path / "scenes").mkdir()
            (tmp_path / "scenes" / "b").touch()

    with pytest.raises(BadInput, match=r"the folder .*scenes: another process has filled it"):
        write()
    assert files_below(tmp_path) == ["scenes/b"]
