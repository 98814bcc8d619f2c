"""What a source of frames is, and the counts of what became of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from retinart.engine.media.frame import Frame


@dataclass(kw_only=True)
class SourceCounts:
    """What became of a source's frames: read = taken + skipped + dropped + broken.

    Attributes:
        read: decoded, or received from a live source.
        taken: given to the detector.
        skipped: left out because the selection says so (every, max_fps, start).
        dropped: of a live source, replaced by a newer frame before the detector was free, or left
            over at the end.
        broken: could not be made a picture, or an image file that could not be read.
        reconnects: attempts to connect again.
        announced: frames that the file says it has; 0 when that is not known.
        ended: "" while it runs; "end" of the source or of the selection, "early" for a video with
            fewer frames than it announces, "lost" for one that was given up, "stopped".
        why: the reason of "lost".
    """

    read: int = 0
    taken: int = 0
    skipped: int = 0
    dropped: int = 0
    broken: int = 0
    reconnects: int = 0
    announced: int = 0
    ended: str = ""
    why: str = ""


class Source(Protocol):
    """Frames of one place."""

    name: str
    live: bool
    counts: SourceCounts

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""

    def take(self) -> Frame | None:
        """The next frame, or of a live source the newest; None when there is none now."""

    def close(self) -> None:
        """Give back what it holds."""
