"""What a source of frames is, and the counts of what became of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from retinart.engine.media.frame import Frame


@dataclass(kw_only=True)
class SourceCounts:
    """What became of a source's frames: read = skipped + dropped + broken + taken.

    Attributes:
        read: frames decoded, or received from a live source.
        skipped: left out because the selection says so (every, max_fps, start).
        dropped: of a live source, replaced by a newer frame before the detector was free, or left
            over at the end.
        broken: damaged frames of a video, or images that cannot be read.
        taken: given to the detector.
        detected: of those, frames that have a result.
        still: of those, frames that took over the result of the frame before.
        written: of those, frames whose results a job has written.
        reconnects: attempts to connect again.
        announced: frames that the file says it has; 0 when that is not known.
        ended: "" while it runs; "end" of the source or of the selection, "early" for a video with
            fewer frames than it announces, "lost" for one that was given up, "stopped".
        why: the reason of "lost".
    """

    read: int = 0
    skipped: int = 0
    dropped: int = 0
    broken: int = 0
    taken: int = 0
    detected: int = 0
    still: int = 0
    written: int = 0
    reconnects: int = 0
    announced: int = 0
    ended: str = ""
    why: str = ""

    @property
    def abandoned(self) -> int:
        """Frames that were taken but not detected on, because the job stopped."""
        return self.taken - self.detected


class Source(Protocol):
    """Where frames come from: a video, images, or a live source."""

    @property
    def name(self) -> str:
        """The path or the address, without a user name and password."""

    @property
    def live(self) -> bool:
        """Whether only its newest frame counts."""

    @property
    def stills(self) -> bool:
        """Whether its frames are images, each from a file of its own and without a time."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that it reads; none of an address or a webcam."""

    @property
    def rate(self) -> float | None:
        """Nominal frames a second; None for images."""

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of its first frame in pixels; None where it is not known beforehand."""

    @property
    def has_sound(self) -> bool | None:
        """Whether it has sound; None where that is not known."""

    @property
    def counts(self) -> SourceCounts:
        """What became of its frames so far."""

    @property
    def unreadable(self) -> Sequence[tuple[Path, str]]:
        """Images that could not be read so far, with the reason."""

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""

    def take(self) -> Frame | None:
        """The next frame, or of a live source the newest; None when there is none now."""

    def close(self) -> None:
        """Close the file or the connection."""
