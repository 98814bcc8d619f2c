"""Writing files so that a crash never leaves a half-written one under its final name."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retinart.engine.errors import BadInput


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it on success and deleted on failure.

    The temporary name keeps the suffix, because OpenCV picks encoders by it.

    Raises:
        BadInput: the folder cannot be made or written to, or a folder has that name.
    """
    make_folder(path.parent)
    try:
        if path.is_dir():  # said now: the rename would fail only after all the work
            raise BadInput(f"cannot write {path}", why="it is a folder", fix="Choose another name")
        handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise BadInput(f"cannot write {path}", why=error.strerror or str(error)) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> Path:
    """Make a folder with its parents and see that files can be written to it.

    Raises:
        BadInput: it cannot be made, is a file, or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadInput(
            f"cannot write to the folder {folder}",
            why=error.strerror or str(error),
            fix="Choose another output folder or change its permissions",
        ) from error
    return folder


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
