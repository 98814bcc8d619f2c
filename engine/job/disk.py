"""Notice that a disk is almost full, while there is room to complete the files that are open."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from retinart.engine.errors import RetinartError

RESERVE = 4 << 20  # bytes to complete the files: indices, encoders' buffers, summary.json
_HELD_BACK = 1 << 20  # bytes of a file that may still be in memory; FFmpeg buffers a quarter of it
_INDEX = 48  # most bytes that an MP4's index has for one frame


class OutOfRoom(RetinartError):
    """There is no more room for output. The output that was written before is kept."""


def check_room(folders: Iterable[Path], files: dict[Path, int], *, reserve: int = RESERVE) -> None:
    """Check that the files can grow and then be completed.

    Args:
        folders: on the disks that are written to.
        files: that are open. The value is the number of frames of a video, and 0 for other files.
        reserve: bytes that stay free on each disk.

    Raises:
        OutOfRoom: the disk has only the room that completing the files may take, or a file has
            almost the largest size that this process may write (`ulimit -f`).
    """
    index = _INDEX * sum(files.values())
    for folder in folders:
        free = shutil.disk_usage(folder).free
        if free < reserve + index:
            raise OutOfRoom(
                f"the disk of {folder} is full",
                why=f"{free / 2**20:.1f} MiB are left, which are needed to complete the files",
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
    """The most bytes that this process may write to a file; None if there is no limit."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit
