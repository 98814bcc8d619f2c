"""What a detection job reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retinart.engine.errors import BadInput
from retinart.engine.keep.areas import Areas
from retinart.engine.media.settings import StreamSettings
from retinart.engine.reached_limits import SURE


@dataclass(frozen=True, kw_only=True)
class DetectJob:
    """What to detect on and what to write.

    Attributes:
        source: an image, a folder, a glob, a video, a webcam's number or an address; or several.
        out: folder for annotated copies, `detections.jsonl` and `summary.json`.
        coco, csv: further files to write, or None.
        annotations: COCO file that gives `coco` the ids of images and categories, or None.
        draw_conf: detections below this score are written, but they are neither drawn nor counted
            in the lines for people.
        copies: whether annotated copies are written.
        audio: keep the sound of a video in its annotated copy.
        show: show them in a window as well.
        view: "address:port" to show the newest frames at, in a browser; None shows no page.
        track: give objects ids through the frames.
        areas: drawn on annotated copies; with `track`, objects are counted at its lines and zones.
        stats: seconds between two tables of the figures so far on stderr; 0 prints no tables.
        stream: which frames, and how they get to the detector.
    """

    source: str | Sequence[str]
    out: Path
    coco: Path | None = None
    annotations: Path | None = None
    csv: Path | None = None
    draw_conf: float = SURE
    copies: bool = True
    audio: bool = False
    show: bool = False
    view: str | None = None
    track: bool = False
    areas: Areas | None = None
    stats: float = 0.0
    stream: StreamSettings = field(default_factory=StreamSettings)

    def __post_init__(self) -> None:
        if not self.stats >= 0:
            raise BadInput(f"`stats` is {self.stats}", fix="Give seconds, or 0 for no tables")
        if self.annotations is not None and self.coco is None:
            raise BadInput(
                "`annotations` gives ids to COCO results, and none are written",
                fix="Give `coco` as well",
            )
        if self.annotations is not None and not self.annotations.is_file():
            raise BadInput(f"there is no file {self.annotations}", fix="Check `annotations`")
        if self.audio and not self.copies:
            raise BadInput(
                "sound cannot be kept",
                why="it goes into the annotated video, and none is written",
                fix="Leave out either `audio` or `copies=False`",
            )
