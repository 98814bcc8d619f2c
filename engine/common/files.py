"""Files that appear under their names only when they are whole, and survive a power cut then."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retinart.engine.common.bounded_reading import check_regular, other_kind
from retinart.engine.common.folders import make_parents, missing_folders, remove_empty
from retinart.engine.common.leftovers import create, remove_leftovers, temporary_name
from retinart.engine.errors import BadInput

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class AtomicFile:
    """A file with a temporary name, until `commit` gives it its own or `discard` deletes it.

        file = AtomicFile(path)
        file.temporary.write_text("all of it")
        file.commit()

    If the process is killed, the next `AtomicFile` in the folder removes the temporary file.

    Args:
        path: the final name. Missing folders are made, and `discard` removes them again.
        durable: whether `commit` waits until the disk has the file, so that a power cut cannot
            lose it. That costs milliseconds; files that come by the thousand can do without.

    Attributes:
        path: the final name.
        temporary: an empty file in the same folder. It has the same suffix, because encoders are
            chosen by it.

    Raises:
        BadInput: the folder cannot be made or written to, or `path` is a folder, a pipe or a
            device.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path, self._durable = path, durable
        self.temporary = temporary_name(path.parent, path.suffix)
        self._made = missing_folders(path.parent)
        self._handle: int | None = None
        try:
            make_parents(path.parent)
            remove_leftovers(path.parent)
            self._handle = self._create()
        except BaseException:
            remove_empty(self._made)
            raise

    def sync(self) -> None:
        """Wait until the disk has what was written so far, under the file's name of the moment."""
        if self._handle is not None:
            os.fsync(self._handle)

    def commit(self) -> None:
        """Give the file its name; it replaces an older file.

        Raises:
            OSError: it cannot be renamed or kept by the disk; then it is deleted.
        """
        try:
            if self._durable:
                self.sync()
            self.temporary.replace(self.path)
        except BaseException:
            self.discard()
            raise
        if self._durable:
            sync_folder(self.path.parent)
        self._close()

    def discard(self) -> None:
        """Delete the file, and the folders that were made for it. After `commit` it stays."""
        if self._handle is not None:
            with suppress(OSError):  # its folder may be gone
                self.temporary.unlink()
            remove_empty(self._made)
        self._close()

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None

    def _create(self) -> int:
        try:
            # a rename onto a folder fails, and one onto a device replaces it, such as /dev/null
            if kind := other_kind(self.path):
                raise BadInput(
                    f"cannot write {self.path}", why=f"it is {kind}", fix="Choose another name"
                )
            return create(self.temporary)
        except OSError as error:
            raise BadInput(
                f"cannot write {self.path}",
                why=error.strerror or str(error),
                fix="Choose another name, or a folder that you may write to",
            ) from error


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """The temporary name of an `AtomicFile`: committed on success, discarded on failure.

    Raises:
        BadInput: as `AtomicFile`, or the disk is full.
    """
    file = AtomicFile(path, durable=durable)
    with _room_for(path):
        try:
            yield file.temporary
        except BaseException:
            file.discard()
            raise
        file.commit()


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """The system's error about a full disk names no file, or a temporary one: name the right one.

    Raises:
        BadInput: it is full, or the file would be larger than this process may write.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise BadInput(
            f"cannot write {path}",
            why=error.strerror or str(error),
            fix="Make room on its disk, or choose another one",
        ) from error


@contextmanager
def atomic_pair(first: Path, second: Path) -> Iterator[tuple[Path, Path]]:
    """Temporary names of two files that belong together: both get their names, or none does.

    If the second one cannot be renamed, the older file is back under the first one's name.

    Raises:
        BadInput: as `AtomicFile`, or the disk is full.
    """
    files = [AtomicFile(first)]
    with _room_for(first):
        try:
            files.append(AtomicFile(second))
            yield files[0].temporary, files[1].temporary
            files[1].sync()  # what can fail goes before the first rename
            old = _second_name(first)
        except BaseException:
            for file in files:
                file.discard()
            raise
    try:
        files[0].commit()
        _commit_or_take_back(files[1], first, old)
    finally:
        files[1].discard()
        if old is not None:
            old.unlink(missing_ok=True)


def _commit_or_take_back(file: AtomicFile, other: Path, old: Path | None) -> None:
    try:
        file.commit()
    except BaseException:
        if old is None:
            other.unlink(missing_ok=True)
        else:
            old.replace(other)
        raise


def _second_name(path: Path) -> Path | None:
    """Another name of a file's content, which stays when the file is replaced; None without one."""
    if not path.exists():
        return None
    other = temporary_name(path.parent, path.suffix)
    try:
        os.link(path, other)
    except OSError:  # a file system without hard links
        shutil.copy2(path, other)
    return other


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """The temporary name of a folder, which gets its own once it is whole.

    Args:
        folder: the final name; nothing is there, or an empty folder.

    Raises:
        BadInput: its parent cannot be made, or the disk is full.
    """
    make_parents(folder.parent)
    remove_leftovers(folder.parent)
    temporary = temporary_name(folder.parent)
    with _room_for(folder):
        handle = create(temporary, folder=True)
        try:
            yield temporary
            _give_name(temporary, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(handle)


def _give_name(temporary: Path, folder: Path) -> None:
    try:
        temporary.replace(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise BadInput(
            f"cannot write the folder {folder}",
            why="another process has filled it meanwhile",
            fix="Use that one, or choose another name",
        ) from error


def write_json(path: Path, content: Any, *, indent: int | None = None) -> None:
    """Write plain JSON types, in ASCII; the file gets its name once it is whole."""
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(content, indent=indent), encoding="utf-8")


def json_text(content: Any, *, indent: int | None = None) -> str:
    """Plain JSON types as ASCII text that ends with a line break."""
    return json.dumps(content, indent=indent) + "\n"


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, where the file system can say so."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes. Raises BadInput for a device, a pipe or a missing file."""
    check_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
