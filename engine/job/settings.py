"""What a detection job reads and writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from retinart.engine.common import utc
from retinart.engine.errors import BadInput
from retinart.engine.keep.areas import Areas
from retinart.engine.media.settings import StreamSettings
from retinart.engine.reached_limits import SURE

TrackerKind = Literal["bytetrack", "sort"]
ClipOn = Literal["event", "cross", "enter", "leave"]


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """Which events get a short video, and how many of these stay.

    Attributes:
        clip_on: a kind of event, or "event" for all kinds.
        pre, post: seconds of the video before an event and after it.
        keep: most gigabytes (1e9 bytes) of all clips; None keeps all.

    Raises:
        BadInput: a number that makes no sense.
    """

    clip_on: ClipOn = "event"
    pre: float = 5.0
    post: float = 5.0
    keep: float | None = None

    def __post_init__(self) -> None:
        for name, value, most in (("pre", self.pre, 60), ("post", self.post, 300)):
            if not 0 <= value <= most:
                raise BadInput(f"`{name}` is {value}", fix=f"Give 0 to {most} seconds")
        if self.keep is not None and not 0.001 <= self.keep < math.inf:
            raise BadInput(f"`keep` is {self.keep}", fix="Give gigabytes, at least 0.001")


@dataclass(frozen=True, kw_only=True)
class DetectJob:
    """What to detect on and what to write.

    Attributes:
        source: an image, a folder, a glob, a video, a webcam's number or an address; or several.
        out: folder for annotated copies, `detections.jsonl` and `summary.json`.
        detections_file: whether `detections.jsonl` is written; sinks get its lines anyway.
        coco, csv: further files to write, or None.
        annotations: COCO file that gives `coco` the ids of images and categories, or None.
        draw_conf: detections below this score are written, but they are neither drawn nor counted
            in the lines for people.
        copies: whether annotated copies are written.
        audio: keep the sound of a video in its annotated copy.
        show: show them in a window as well.
        view: "address:port" to show the newest frames at, in a browser; None shows no page.
        metrics: "address:port" at which Prometheus finds the job's figures; None serves none.
        sinks: where the JSON lines of frames and events are sent as well; see `open_sink`.
        track: give objects ids through the frames.
        tracker: what gives them.
        areas: drawn on annotated copies; with `track`, objects are counted at its lines and zones.
        clips: with `track`, short videos of what happens at the lines and in the zones; None writes
            none.
        started: when, for `summary.json`.
        stats: seconds between two tables of the figures so far on stderr; 0 prints no tables.
        stream: which frames, and how they get to the detector.
    """

    source: str | Sequence[str]
    out: Path
    detections_file: bool = True
    coco: Path | None = None
    annotations: Path | None = None
    csv: Path | None = None
    draw_conf: float = SURE
    copies: bool = True
    audio: bool = False
    show: bool = False
    view: str | None = None
    metrics: str | None = None
    sinks: tuple[str, ...] = ()
    track: bool = False
    tracker: TrackerKind = "bytetrack"
    areas: Areas | None = None
    clips: ClipSettings | None = None
    started: datetime = field(default_factory=utc.now)
    stats: float = 0.0
    stream: StreamSettings = field(default_factory=StreamSettings)

    def __post_init__(self) -> None:
        if not self.stats >= 0:
            raise BadInput(f"`stats` is {self.stats}", fix="Give seconds, or 0 for no tables")
        if self.clips is not None and not self._counts:
            raise BadInput(
                "there are no events to make clips of",
                why="events are of tracked objects at lines and in zones",
                fix="Give `track`, and `region` with lines or zones",
            )
        if not self._leaves_something:
            raise BadInput(
                "the job would leave nothing but counts in summary.json",
                why="`detections_file=False` is given, and no other output",
                fix="Leave it out, or give `csv`, `coco`, `sinks`, `metrics`, `view`, or `track` "
                "and `region` with lines or zones",
            )
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

    @property
    def _counts(self) -> bool:
        """Whether there are events: tracked objects at lines and in zones."""
        return self.track and self.areas is not None and self.areas.counts

    @property
    def _leaves_something(self) -> bool:
        """Whether results are written, sent or shown."""
        written = self.detections_file or self.copies or self._counts
        written = written or self.coco is not None or self.csv is not None
        watched = self.metrics is not None or self.view is not None or self.show
        return bool(written or watched or self.sinks)
