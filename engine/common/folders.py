"""Folders for output: made when they are missing, checked before the work, used by one process."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path

from retinart.engine.common.leftovers import lock, remove_leftovers, same_file
from retinart.engine.errors import BadInput

LOCK_NAME = ".retinart.lock"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder for output. On failure, the folders that this made go again where they are empty.

    Raises:
        BadInput: as `make_folder`.
    """
    made = missing_folders(folder)
    try:
        yield make_folder(folder)
    except BaseException:
        remove_empty(made)
        raise


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """A `new_folder` that no second process uses at the same time.

    A file in it holds the process's id. It is locked, so that the one of a killed process counts
    for nothing, and it goes when the work ends.

    Raises:
        BadInput: as `make_folder`, or another process uses the folder.
    """
    with new_folder(folder), _locked(folder):
        yield folder


@contextmanager
def results_folder(
    out: Path | None, default: Path, files: Sequence[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """A folder for the results of one run, which does not replace the results of another.

    No second process uses it at the same time, as in `own_folder`.

    Args:
        out: the folder that the user named, or None.
        default: without one, this folder; if it exists, the first of `default`2, `default`3 and so
            on that does not.
        files: names of files that mark a folder with results.
        overwrite: take `out`, or `default`, even if it holds results.

    Raises:
        BadInput: `out` holds results, or as `own_folder`.
    """
    folder = out or default
    if not overwrite and any((folder / name).exists() for name in files if out):
        raise BadInput(
            f"{folder} holds the results of another run",
            fix="Choose another `out`, or replace them with `overwrite`",
        )
    made = missing_folders(folder)
    if not overwrite and out is None:
        folder = _claimed(default)
        made = [folder, *made[1:]]
    try:
        with _locked(make_folder(folder)):
            yield folder
    except BaseException:
        remove_empty(made)
        raise


def _claimed(default: Path) -> Path:
    """A new folder: `default`, or the first numbered one that does not exist."""
    make_parents(default.parent)
    for number in count(1):
        folder = default if number == 1 else default.with_name(f"{default.name}{number}")
        with _explained(folder), suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = _take(folder)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                if same_file(handle, folder / LOCK_NAME):
                    (folder / LOCK_NAME).unlink()
            os.close(handle)


def _take(folder: Path) -> int | None:
    """Lock a folder; returns the open lock, or None where the file system has no locks."""
    path = folder / LOCK_NAME
    while True:
        with _explained(folder):
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            locked = lock(handle)
        except BlockingIOError as error:
            holder = _holder(handle)
            os.close(handle)
            raise BadInput(
                f"cannot use the folder {folder}",
                why=f"{holder} is writing to it",
                fix="Wait until that has ended, or give another folder",
            ) from error
        if not locked:
            os.close(handle)
            with suppress(OSError):
                path.unlink()
            return None
        if not same_file(handle, path):  # its last user has just removed it
            os.close(handle)
            continue
        try:
            with _explained(folder):
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except BaseException:  # a full disk
            path.unlink(missing_ok=True)
            os.close(handle)
            raise
        return handle


def _holder(handle: int) -> str:
    """Who locked an open file, which that process writes right after it has locked the file."""
    for _ in range(20):
        if holder := os.pread(handle, 200, 0).decode("utf-8", "replace").strip():
            return holder
        time.sleep(0.05)
    return "another process"


def make_folder(folder: Path) -> Path:
    """Make a folder with its parents, and check that files can be written to it.

    What killed processes left in it goes.

    Raises:
        BadInput: it cannot be made, is a file, or is not writable.
    """
    make_parents(folder)
    with _explained(folder), tempfile.TemporaryFile(dir=folder):
        pass
    remove_leftovers(folder)
    return folder


def make_parents(folder: Path) -> None:
    """Make a folder with its parents.

    Raises:
        BadInput: it cannot be made, or is a file.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


def missing_folders(folder: Path) -> list[Path]:
    """The folder and its parents that do not exist, innermost first."""
    return list(takewhile(lambda path: not path.exists(), (folder, *folder.parents)))


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders where they are empty."""
    for path in folders:
        with suppress(OSError):  # it holds something by now
            path.rmdir()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"cannot write to the folder {folder}",
            why=error.strerror or str(error),
            fix="Choose another output folder or change its permissions",
        ) from error
