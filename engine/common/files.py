"""Writing files so that a crash never leaves a half-written one under its final name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retinart.engine.errors import BadInput


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it on success and deleted on failure.

    The temporary name keeps the suffix, because OpenCV picks encoders by it.

    Raises:
        BadInput: the folder cannot be made or written to, or a folder has that name.
    """
    with new_folder(path.parent):
        temporary = path.parent / f".{secrets.token_hex(8)}{path.suffix}"
        try:
            if path.is_dir():  # said now: the rename would fail only after all the work
                raise BadInput(
                    f"cannot write {path}", why="it is a folder", fix="Choose another name"
                )
            # the kernel takes the umask off: asking for it means setting it, for all threads
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise BadInput(
                f"cannot write {path}",
                why=error.strerror or str(error),
                fix="Choose another name, or a folder that you may write to",
            ) from error
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def atomic_json(path: Path, content: Any, *, indent: int | None = None) -> None:
    """Write plain JSON types; the file gets its name once it is whole."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """After an error a small file is what it was before, or is not there if it was not."""
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
    """Remove what processes that were killed while they wrote left in a folder that is ours."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\.[0-9a-f]{16}", path.stem):
            path.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder for output; on failure what this made of it and its parents goes, if it is empty.

    Raises:
        BadInput: as `make_folder`.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield make_folder(folder)
    except BaseException:
        for path in missing:
            with suppress(OSError):  # it holds something by now
                path.rmdir()
        raise


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


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
