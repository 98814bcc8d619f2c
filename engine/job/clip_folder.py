"""The folder of clips: their names, and which ones make room for others."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from retinart.engine.common import utc
from retinart.engine.media.video_packets import is_clip


class ClipFolder:
    """Clips on the disk, the oldest first. Those of earlier runs count too, and no other files do.

    Args:
        path: of the folder, which need not exist.
        keep: most bytes of all clips; None keeps all.

    Attributes:
        path: of the folder.
        deleted: how many clips have made room.
    """

    def __init__(self, path: Path, keep: float | None) -> None:
        self.path, self._keep, self.deleted = path, keep, 0
        self._used = set[Path]()
        self._sizes = dict[Path, int]()  # in the order of deletion
        if keep is not None:
            old = [p for p in path.glob("*.mp4") if p.is_file() and is_clip(p)]
            for one in sorted(old, key=lambda p: (p.stat().st_mtime, p.name)):
                self._sizes[one] = one.stat().st_size

    def free_name(self, stem: str, begin: float | datetime) -> Path:
        """A new file's path. Its name has the time of the first event, and the source.

        Args:
            stem: of the source.
            begin: seconds in a video, or the UTC time of a live source.
        """
        if isinstance(begin, datetime):
            time = utc.in_names(begin)
        else:
            minutes, rest = divmod(max(0.0, begin), 60)
            time = f"{minutes // 60:02.0f}h{minutes % 60:02.0f}m{int(rest):02d}s"
        number = 1
        while True:
            name = f"{time}-{stem}" + (f"-{number}" if number > 1 else "")
            path, number = self.path / f"{name}.mp4", number + 1
            if path not in self._used and (not path.exists() or is_clip(path)):
                self._used.add(path)
                return path

    def name(self, path: Path) -> str:
        """A clip's path relative to the job's folder."""
        return f"{self.path.name}/{path.name}"

    def add(self, path: Path) -> None:
        """Note a clip that was written."""
        self._sizes.pop(path, None)
        with suppress(OSError):
            self._sizes[path] = path.stat().st_size

    def make_room(self, growing: Iterable[int]) -> bool:
        """Delete the oldest clips until all fit.

        Args:
            growing: bytes of the clips that are being written.

        Returns:
            Whether they fit now.
        """
        if self._keep is None:
            return True
        room = self._keep - sum(growing)
        total = sum(self._sizes.values())
        while total > room and self._sizes:
            oldest = next(iter(self._sizes))
            total -= self._sizes.pop(oldest)
            self._used.discard(oldest)
            with suppress(OSError):  # somebody else was faster, or owns it now
                oldest.unlink()
                self.deleted += 1
        return total <= room
