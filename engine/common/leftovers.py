"""Temporary files and folders of retinart's own: each locked by its process, so a leftover shows.

The name tells that retinart made it. The lock tells that its process lives: the system releases a
process's locks when it ends, even by SIGKILL. So what is not locked was left by a killed process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"\.retinart-[0-9a-f]{16}(\.[^/]*)?")
_OLD_SECONDS = 24 * 3600.0  # where the file system has no locks, age alone tells a leftover
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_swept: set[tuple[int, int]] = set()  # folders that this process has looked through


def temporary_name(folder: Path, suffix: str = "") -> Path:
    """A new name in a folder that `remove_leftovers` knows."""
    return folder / f".retinart-{secrets.token_hex(8)}{suffix}"


def create(path: Path, *, folder: bool = False) -> int:
    """Make an empty file or folder, with the umask's permissions, and lock it.

    Returns:
        An open descriptor, which holds the lock until it is closed.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        if folder:
            path.mkdir()
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        else:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            lock(handle, wait=True)
        except BaseException:
            os.close(handle)
            raise
        if same_file(handle, path):
            return handle
        os.close(handle)  # another process took it for a leftover before it was locked


def lock(handle: int, *, wait: bool = False) -> bool:
    """Lock an open file or folder.

    Args:
        handle: its descriptor.
        wait: until another process releases it.

    Returns:
        Whether the file system has locks; without them nothing is locked.

    Raises:
        BlockingIOError: another process has locked it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def same_file(handle: int, path: Path) -> bool:
    """Whether an open file is still the one that has a name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder; once a process, as folders can be large."""
    with suppress(OSError):  # it may not be ours to read
        status = folder.stat()
        key = (status.st_dev, status.st_ino)
        if key in _swept:
            return
        _swept.add(key)
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name)]
        for path in found:
            _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    with suppress(OSError):  # another process is faster, uses it, or owns it
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            locked = lock(handle)
            if not locked and time.time() - os.fstat(handle).st_mtime < _OLD_SECONDS:
                return
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(handle)
