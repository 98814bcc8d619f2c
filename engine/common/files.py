"""Files that appear under their names only when they are whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from retinart.engine.errors import BadInput


class AtomicFile:
    """A file with a temporary name, until `commit` gives it its own or `discard` deletes it.

        file = AtomicFile(path)
        file.temporary.write_text("all of it")
        file.commit()

    Args:
        path: the final name. Missing folders are made, and `discard` removes them again.

    Attributes:
        path: the final name.
        temporary: an empty file in the same folder. It has the same suffix, because encoders are
            chosen by it.

    Raises:
        BadInput: the folder cannot be made or written to, or `path` is a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.parent / f".{secrets.token_hex(8)}{path.suffix}"
        self._made = _missing(path.parent)
        self._open = True
        try:
            _mkdir(path.parent)
            self._create()
        except BaseException:
            self.discard()
            raise

    def commit(self) -> None:
        """Give the file its name; it replaces an older file.

        Raises:
            OSError: it cannot be renamed; then it is deleted.
        """
        try:
            self.temporary.replace(self.path)
        except BaseException:
            self.discard()
            raise
        self._open = False

    def discard(self) -> None:
        """Delete the file, and the folders that were made for it. After `commit` it stays."""
        if self._open:
            with suppress(OSError):  # an error while it was made may leave none
                self.temporary.unlink()
            _remove_empty(self._made)
        self._open = False

    def _create(self) -> None:
        try:
            if self.path.is_dir():  # the rename would fail only after all the work
                raise BadInput(
                    f"cannot write {self.path}", why="it is a folder", fix="Choose another name"
                )
            # os.open applies the umask; asking for the umask means setting it, for all threads
            os.close(os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise BadInput(
                f"cannot write {self.path}",
                why=error.strerror or str(error),
                fix="Choose another name, or a folder that you may write to",
            ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """The temporary name of an `AtomicFile`: committed on success, discarded on failure."""
    file = AtomicFile(path)
    try:
        yield file.temporary
    except BaseException:
        file.discard()
        raise
    file.commit()


def write_json(path: Path, content: Any, *, indent: int | None = None) -> None:
    """Write plain JSON types, in ASCII; the file gets its name once it is whole."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """After an error, a small file is as it was before, or missing if it was missing."""
    old = _content(path)
    try:
        yield
    except BaseException:
        if _content(path) != old:
            if old is None:
                path.unlink()
            else:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(old)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder of retinart's own."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\.[0-9a-f]{16}", path.stem):
            path.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder for output. On failure, the folders that this made go again where they are empty.

    Raises:
        BadInput: as `make_folder`.
    """
    made = _missing(folder)
    try:
        yield make_folder(folder)
    except BaseException:
        _remove_empty(made)
        raise


@contextmanager
def results_folder(
    out: Path | None, default: Path, files: Sequence[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """A folder for the results of one run, which does not replace the results of another.

    Args:
        out: the folder that the user named, or None.
        default: without one, this folder; if it exists, the first of `default`2, `default`3 and so
            on that does not.
        files: names of files that mark a folder with results.
        overwrite: take `out`, or `default`, whatever it holds.

    Raises:
        BadInput: `out` holds results, or as `make_folder`.
    """
    folder = out or default
    if not overwrite and any((folder / name).exists() for name in files if out):
        raise BadInput(
            f"{folder} holds the results of another run",
            fix="Choose another `out`, or replace them with `overwrite`",
        )
    made = _missing(folder)
    if not overwrite and out is None:
        folder = _claimed(default)
        made = [folder, *made[1:]]
    try:
        yield make_folder(folder)
    except BaseException:
        _remove_empty(made)
        raise


def make_folder(folder: Path) -> Path:
    """Make a folder with its parents, and check that files can be written to it.

    Raises:
        BadInput: it cannot be made, is a file, or is not writable.
    """
    _mkdir(folder)
    with _explained(folder), tempfile.TemporaryFile(dir=folder):
        pass
    return folder


def _claimed(default: Path) -> Path:
    """A new folder: `default`, or the first numbered one that does not exist."""
    _mkdir(default.parent)
    for number in count(1):
        folder = default if number == 1 else default.with_name(f"{default.name}{number}")
        with _explained(folder), suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError


def _mkdir(folder: Path) -> None:
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


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


def _missing(folder: Path) -> list[Path]:
    """The folder and its parents that do not exist, innermost first."""
    return list(takewhile(lambda path: not path.exists(), (folder, *folder.parents)))


def _remove_empty(folders: Iterable[Path]) -> None:
    for path in folders:
        with suppress(OSError):  # it holds something by now
            path.rmdir()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
