"""What a running job tells of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retinart.engine.common.latency_histogram import Times
from retinart.engine.common.timing import StageName
from retinart.engine.media.source import SourceCounts
from retinart.engine.metrics.event_counts import EventKey
from retinart.engine.sinks.sink import SinkCounts

STUCK_SECONDS = 60.0  # a job that holds frames and finishes none for so long is not well


@dataclass(frozen=True, kw_only=True)
class JobFigures:
    """The figures of a job at one moment.

    Attributes:
        sources: the name of each source, without a password, and what became of its frames.
        detections: how many were found by class name, with at least the score that is drawn.
        events: how many there were at lines and in zones.
        stages: times by stage.
        ages: times from a frame's capture, by what they end with.
        queues: frames that wait, and places, by the stage that reads the queue.
        sinks: what became of the results that are sent to each.
        since_result: seconds since a frame's results were last written, or since the start.
    """

    sources: Sequence[tuple[str, SourceCounts]]
    detections: Mapping[str, int]
    events: Mapping[EventKey, int]
    stages: Mapping[StageName, Times]
    ages: Mapping[str, Times]
    queues: Mapping[str, tuple[int, int]]
    sinks: Sequence[SinkCounts]
    since_result: float

    @property
    def ready(self) -> bool:
        """Whether a frame has been through, and a source is left."""
        counts = [counts for _, counts in self.sources]
        return any(c.written for c in counts) and not all(c.ended == "lost" for c in counts)

    @property
    def why_unwell(self) -> str:
        """Why the job has to be started again; "" if it is well."""
        waiting = sum(counts.taken - counts.written for _, counts in self.sources)
        if waiting > 0 and self.since_result > STUCK_SECONDS:
            return f"{waiting} frames wait, and none was finished for {self.since_result:.0f} s"
        if all(counts.ended == "lost" for _, counts in self.sources):
            return "; ".join(f"{name} was lost: {counts.why}" for name, counts in self.sources)
        return ""
