"""What a detection job did, for people and as `summary.json`; each figure says what it covers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from retinart.engine.common import utc
from retinart.engine.common.files import write_json
from retinart.engine.common.latency_histogram import PERCENTILES, Times, table
from retinart.engine.common.timing import StageName
from retinart.engine.common.wording import counted
from retinart.engine.keep.counting import Tally
from retinart.engine.media.source import SourceCounts
from retinart.engine.reached_limits import ReachedLimits
from retinart.engine.sinks.sink import SinkCounts

if TYPE_CHECKING:
    from retinart.engine.job.clips import ClipCounts

# "complete": every source came to its end; "interrupted": somebody asked it to stop; "failed":
# an error stopped it; "lost": no source is left, and at least one was given up
How = Literal["complete", "interrupted", "failed", "lost"]
Count = Literal["read", "skipped", "dropped", "broken", "detected", "still", "written", "abandoned"]
COUNTS: tuple[Count, ...] = get_args(Count)
Sound = Literal["kept", "dropped", "none", "unknown"]  # a live source's is unknown

_CLASSES = 5  # that the line for people names
_COVERS: dict[StageName, str] = {
    "decode": "reading and decoding a frame of a file into BGR, with those left out before it",
    "receive": "waiting for a live source's next frame, decoding it, and BGR",
    "resize": "a step's frames (one of each source at most) to the network's size",
    "infer": "a step through the network and NMS, and boxes back into the frames' pixels, from its "
    "start to its end; several may be at it at once, and wait for each other",
    "infer: copy": "of infer, a batch into page-locked memory, which a GPU reads",
    "infer: infer": "of infer, the runtime's part for a batch, with waiting for those before it",
    "infer: nms": "of infer, NMS for a batch, where it is not in the runtime's part",
    "infer: results": "of infer, boxes back into the frames' pixels for a batch",
    "track": "a step's detections through the trackers",
    "draw": "drawing on copies of a step's frames",
    "write": "encoding and writing a step's pictures, JSON lines and other records",
}


@dataclass(frozen=True, kw_only=True)
class SourceSummary:
    """A source, and what became of its frames.

    Attributes:
        name: without passwords.
        live: whether only the newest frame counts.
        counts: what became of its frames.
        sound: what became of it.
    """

    name: str
    live: bool
    counts: SourceCounts
    sound: Sound

    def to_json(self) -> dict[str, Any]:
        """As an object."""
        c = self.counts
        return {
            "name": self.name,
            "live": self.live,
            "read": c.read,
            "skipped": c.skipped,
            "dropped": c.dropped,
            "broken": c.broken,
            "detected": c.detected,
            "still": c.still,
            "written": c.written,
            "abandoned": c.abandoned,
            "announced": c.announced or None,
            "reconnects": c.reconnects,
            "ended": c.ended,
            "why": c.why or None,
            "sound": self.sound,
        }


@dataclass(kw_only=True)
class DetectSummary:
    """What a job did.

    Attributes:
        started: when.
        frames: images or frames whose results were written.
        detections: found in all of them, as the files hold them.
        confident: how many of these score `draw_conf` or more, by class name.
        draw_conf: see `DetectJob`.
        skip_still: whether still frames take over results.
        limits: frames that reached a limit.
        images: whether all sources are images.
        ended: how.
        error: what stopped it, for "failed".
        stop_reason: who asked it to stop, for "interrupted".
        problems: outputs that could not be ended.
        skipped: unreadable images, with the reason.
        sources: one each.
        outputs: files and folders written.
        notes: what a user should know of them.
        seconds: from the first frame's capture to the last result.
        stages: times by stage.
        to_detections: times from a frame's capture until it was detected on.
        to_result: times from a frame's capture until its results were written.
        tallies: what was counted at lines and in zones, by the source's index.
        clips: what became of clips of events; None without any.
        sinks: what became of the results that were sent.
        queues: by the stage that reads it: (capacity, mean depth, greatest depth).
    """

    started: datetime = field(default_factory=utc.now)
    frames: int = 0
    detections: int = 0
    confident: Counter[str] = field(default_factory=Counter)
    draw_conf: float = 0.0
    skip_still: bool = False
    limits: ReachedLimits = field(default_factory=ReachedLimits)
    images: bool = False
    ended: How = "complete"
    error: Exception | None = None
    stop_reason: str = ""
    problems: list[Exception] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    sources: list[SourceSummary] = field(default_factory=list)
    outputs: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stages: dict[StageName, Times] = field(default_factory=dict)
    to_detections: Times = field(default_factory=Times)
    to_result: Times = field(default_factory=Times)
    queues: dict[str, tuple[int, float, int]] = field(default_factory=dict)
    tallies: dict[int, Tally] = field(default_factory=dict)
    clips: ClipCounts | None = None
    sinks: list[SinkCounts] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked it to stop; what was done until then is kept."""
        return self.ended == "interrupted"

    @property
    def announced(self) -> int | None:
        """Frames that the videos announce; None for images and live sources."""
        known = [s.counts.announced for s in self.sources if not s.live]
        return sum(known) if known and not self.images else None

    @property
    def ended_early(self) -> bool:
        """Whether a video gave fewer frames than it announces."""
        return any(s.counts.ended == "early" for s in self.sources)

    @property
    def incomplete(self) -> bool:
        """Whether an image, frame, source, clip, output or result for a sink was lost."""
        lost = any(s.counts.broken or s.counts.ended == "lost" for s in self.sources)
        lost = lost or (self.clips is not None and self.clips.lost > 0)
        lost = lost or any(sink.dropped for sink in self.sinks)
        return bool(self.ended_early or lost or self.problems or self.ended == "failed")

    @property
    def fps(self) -> float:
        """Frames a second, from the first frame's capture to the last result."""
        return self.frames / self.seconds if self.seconds else 0.0

    def total(self, count: Count) -> int:
        """The sum over all sources of one of their counts."""
        return sum(getattr(source.counts, count) for source in self.sources)

    def outcome(self) -> str:
        """What was found, in one line for people."""
        kind, sure = "image" if self.images else "frame", self.confident.total()
        text = counted(self.frames, kind)
        if self.skipped:
            text += f", {len(self.skipped)} skipped"
        if self.skip_still:
            text += f" ({self.total('still')} still)"
        text += f", {counted(sure, 'detection')} with a score from {self.draw_conf:g} on"
        most = self.confident.most_common()
        if len(most) > _CLASSES + 1:  # else the rest is a class, too
            most = most[:_CLASSES]
        if most:
            names = ", ".join(f"{n:,} {name}" for name, n in most)
            rest = sure - sum(n for _, n in most)
            text += f": {names}" + (f", {rest:,} of other classes" if rest else "")
        if weaker := self.detections - sure:
            text += f"; the files also hold {counted(weaker, 'weaker one')}"
        return text + (
            f"; {self.fps:.1f} {kind}s a second" if self.frames > 1 and self.seconds else ""
        )

    def counts(self) -> str:
        """What became of the frames, for people."""
        over = f", {self.total('still')} of them still" if self.skip_still else ""
        return (
            f"read {self.total('read')}, dropped {self.total('dropped')}, left out "
            f"{self.total('skipped')}; detected {self.total('detected')}{over}, {self.fps:.1f} "
            "frames a second"
        )

    def table(self) -> str:
        """Times of the stages and queues, for people."""
        waits = ", ".join(
            f"{name or 'results'} {mean:.1f} (at most {most} of {capacity or 1})"
            for name, (capacity, mean, most) in self.queues.items()
        )
        return (
            f"{table(self.stages, self.seconds)}\n"
            "busy: the stage's work as a share of the time; frames that are at it at once add up\n"
            f"capture to detections: {_percentiles(self.to_detections)}\n"
            f"capture to result: {_percentiles(self.to_result)}\n"
            f"waiting before: {waits}"
        )

    def to_json(self) -> dict[str, Any]:
        """The object of `summary.json`."""
        return {
            "started": utc.iso(self.started),
            "ended": self.ended,
            "stopped_by": self.stop_reason or None,
            "error": None if self.error is None else str(self.error),
            "problems": [str(p) for p in self.problems],
            "notes": self.notes,
            "frames": {
                **{name: self.total(name) for name in COUNTS},
                "covers": "read = skipped (left out as asked) + dropped (live, a newer one came) "
                "+ broken (no picture) + detected + abandoned (taken, but the job stopped). Of "
                "detected, still took over the result of the frame before",
            },
            "detections": self.detections,
            "confident": {
                "value": self.confident.total(),
                "by_class": dict(self.confident.most_common()),
                "covers": f"detections with a score from {self.draw_conf:g} (draw_conf) on",
            },
            "limits": {
                **self.limits.to_json(),
                "covers": "frames that had as many detections as one may have, and frames with "
                "more candidates than enter NMS; the candidates are seen on OpenVINO alone",
            },
            "seconds": round(self.seconds, 3),
            "fps": {
                "value": round(self.fps, 3),
                "covers": "frames written / seconds, from the first frame's capture to the last "
                "result; loading the model is not in it",
            },
            "capture_to_detections_ms": {
                **self.to_detections.to_json(),
                "covers": "from when a frame was decoded (file) or received (live) until it was "
                "detected on, with all waiting in between",
            },
            "capture_to_result_ms": {
                **self.to_result.to_json(),
                "covers": "the same until the annotated frame and the line were written",
            },
            "stages_ms": {
                name: {**t.to_json(), "covers": _COVERS[name]} for name, t in self.stages.items()
            },
            "queues": {
                name or "results": {
                    "capacity": capacity,
                    "mean": round(mean, 3),
                    "max": most,
                    "covers": "steps waiting before this stage, each time one was added; before "
                    "finish they are at inference",
                }
                for name, (capacity, mean, most) in self.queues.items()
            },
            "sources": [
                {**source.to_json(), **self._tally(i)} for i, source in enumerate(self.sources)
            ],
            **({} if self.clips is None else {"clips": self.clips.to_json()}),
            **({"sinks": [sink.to_json() for sink in self.sinks]} if self.sinks else {}),
            "outputs": [str(path) for path in self.outputs],
        }

    def _tally(self, source_index: int) -> dict[str, Any]:
        tally = self.tallies.get(source_index)
        if tally is None:
            return {}
        lines = {name: asdict(line) for name, line in tally.lines.items()}
        zones = {
            name: {**asdict(zone), "dwell_mean": zone.dwell_mean}
            for name, zone in tally.zones.items()
        }
        return {"lines": lines, "zones": zones}

    def write(self, path: Path) -> None:
        """Write `summary.json`."""
        write_json(path, self.to_json(), indent=1)


def _percentiles(times: Times) -> str:
    return ", ".join(f"p{p} {times.percentile(p):.1f}" for p in PERCENTILES) + " ms"
