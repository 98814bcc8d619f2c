"""Room for output: noticed before a disk is full, as OpenCV's encoder never says that it was."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from retinart.engine.errors import RetinartError

RESERVE = 4 << 20  # bytes that ending the files may take: indices, encoders' buffers, the summary
_HELD_BACK = 1 << 20  # bytes that an encoder may keep in memory; FFmpeg's buffer is a quarter of it
_INDEX = 48  # bytes a frame in an MP4's index, at most


class OutOfRoom(RetinartError):
    """There is no more room for output; what was written until then is kept."""


def check_room(folders: Iterable[Path], files: dict[Path, int]) -> None:
    """See that files can grow and still be ended.

    Args:
        folders: whose disks are written to.
        files: those being written, with the number of frames in each video, 0 for others.

    Raises:
        OutOfRoom: the disk has no more than what ending them may take, or one of them comes near
            the largest size that this process may write (`ulimit -f`).
    """
    index = _INDEX * sum(files.values())
    for folder in folders:
        free = shutil.disk_usage(folder).free
        if free < RESERVE + index:
            raise OutOfRoom(
                f"the disk of {folder} is full",
                why=f"{free / 2**20:.1f} MiB are left, which ending the files may take",
                fix="Make room, or choose another `out`",
            )
    limit = largest_file()
    if limit is None:
        return
    for path, frames in files.items():
        if path.stat().st_size > limit - _HELD_BACK - _INDEX * frames:
            raise OutOfRoom(
                f"an output in {path.parent} has almost reached {limit / 2**20:.1f} MiB",
                why="this process may not write larger files (ulimit -f)",
                fix="Raise the limit",
            )


def largest_file() -> int | None:
    """Bytes that a file of this process may have; None without a limit."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit
