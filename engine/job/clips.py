"""Short videos of events: the seconds before wait in memory, encoded, and those after follow.

Each frame is encoded once, whether or not something happens. The packets of the last seconds wait
in memory. An event writes them to a file, which then grows with each frame. An event whose clip
would overlap the one before extends that one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from retinart.engine.common import utc
from retinart.engine.errors import BadInput, RetinartError
from retinart.engine.job.clip_folder import ClipFolder
from retinart.engine.job.disk import RESERVE, OutOfRoom, check_room
from retinart.engine.job.settings import ClipSettings
from retinart.engine.keep.counting import Event
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image
from retinart.engine.media.video_packets import Packet, PacketEncoder, PacketWriter

_MOST_BYTES = 64 << 20  # that wait in memory, of one source
_LONGEST = 600.0  # seconds of a clip; the events after it get the next one
_LISTED = 1000  # clips that the summary names
_RESERVE = 4 * RESERVE  # a clip gives way before the job's other files have to


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """What clips need to know of a source.

    Attributes:
        name: without passwords.
        stem: what its clips' names end with.
        fps: nominal frame rate.
    """

    name: str
    stem: str
    fps: float


@dataclass(kw_only=True)
class ClipCounts:
    """What became of the clips.

    Attributes:
        written, lost: how many; a lost one could not be written.
        deleted: how many were deleted to make room for others.
        files: the last ones that were written.
        why: the reason for the last loss.
    """

    written: int = 0
    lost: int = 0
    deleted: int = 0
    files: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_LISTED))
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """As an object of `summary.json`."""
        return {
            "written": self.written,
            "lost": self.lost,
            "why": self.why or None,
            "deleted": self.deleted,
            "files": list(self.files),
            "covers": "clips of events; lost ones could not be written, deleted ones made room for "
            f"others; files has the last {_LISTED} that were written",
        }


@dataclass(kw_only=True)
class _Clip:
    """A clip that grows.

    Attributes:
        file: that it is written to.
        until: the time of its end.
        next: the number of the next packet.
        begin, end: times of its first and last packet.
        events: how many it shows.
    """

    file: PacketWriter
    until: float
    next: int
    begin: float
    end: float
    events: int = 0


class _Waiting:
    """The packets of the last seconds of a source. They begin with a key frame."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._bytes = seconds, 0
        self._packets = deque[Packet]()
        self.count = 0  # packets so far

    @property
    def first(self) -> int:
        """The number of the oldest packet."""
        return self.count - len(self._packets)

    def __getitem__(self, number: int) -> Packet:
        return self._packets[number - self.first]

    def add(self, packet: Packet) -> None:
        """Add the newest; the oldest go, from key frame to key frame, if the rest is enough."""
        self._packets.append(packet)
        self._bytes += len(packet.data)
        self.count += 1
        while True:
            second = next((i for i, p in enumerate(self._packets) if i and p.key), None)
            if second is None:
                return
            enough = self._packets[second].seconds <= packet.seconds - self._seconds
            if not enough and self._bytes <= _MOST_BYTES:
                return
            for _ in range(second):
                self._bytes -= len(self._packets.popleft().data)


class _SourceClips:
    """The clips of one source."""

    def __init__(
        self, about: ClipSource, settings: ClipSettings, folder: ClipFolder, counts: ClipCounts
    ) -> None:
        self._about, self._settings, self._folder = about, settings, folder
        self._counts = counts
        self._waiting = _Waiting(settings.pre)
        self._encoder: PacketEncoder | None = None
        self._longest = max(_LONGEST, settings.pre + settings.post)
        self.clip: _Clip | None = None
        self._zero: datetime | None = None  # the UTC time at second 0, of a live source

    def add(self, frame: Frame, picture: Image, events: int) -> list[dict[str, Any]]:
        """Take a frame, in which so many events happened; returns what became of clips."""
        assert frame.time_ms is not None
        ended, now = list[dict[str, Any]](), frame.time_ms / 1000
        self._zero = None if frame.utc is None else frame.utc - timedelta(seconds=now)
        if self._encoder is None:
            height, width = picture.shape[:2]
            self._encoder = PacketEncoder(fps=self._about.fps, size=(height, width))
        for packet in self._encoder(picture, now):
            self._waiting.add(packet)
        if self.clip is not None and not self._goes_on(self.clip, now, events):
            ended += self.end()
        try:
            if events:
                self.clip = self.clip or self._begin(now)
                self.clip.until = now + self._settings.post
                self.clip.events += events
            if self.clip is not None:
                self._grow(self.clip)
        except (BadInput, OSError, OutOfRoom) as error:
            ended.append(self._lose(error))
        return ended

    def end(self) -> list[dict[str, Any]]:
        """End the clip that grows, if there is one."""
        clip = self.clip
        if clip is None:
            return []
        try:
            clip.file.commit()
        except (BadInput, OSError) as error:
            return [self._lose(error)]
        self.clip = None
        self._folder.add(clip.file.path)
        self._counts.written += 1
        told = {
            **self._when(clip.end),
            "source": self._about.name,
            "kind": "clip",
            "clip": self._folder.name(clip.file.path),
            "begin": round(clip.begin, 3),
            "end": round(clip.end, 3),
            "events": clip.events,
        }
        self._counts.files.append({k: v for k, v in told.items() if k not in ("time", "kind")})
        return [told]

    def discard(self) -> None:
        """Delete the clip that grows, and free the encoder."""
        if self.clip is not None:
            self.clip.file.discard()
            self.clip = None
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def _goes_on(self, clip: _Clip, now: float, events: int) -> bool:
        """Whether the clip may still grow: the next event's clip may overlap it."""
        if not events:
            return now <= clip.until + self._settings.pre
        near = now - self._settings.pre <= clip.until and self._waiting.first <= clip.next
        return near and now + self._settings.post - clip.begin <= self._longest

    def _begin(self, now: float) -> _Clip:
        assert self._encoder is not None
        about, first = self._about, self._waiting.first
        path = self._folder.free_name(about.stem, self._day(now) or now)
        begin = self._waiting[first].seconds
        file = PacketWriter(path, self._encoder)
        return _Clip(file=file, until=now, next=first, begin=begin, end=begin)

    def _when(self, seconds: float) -> dict[str, Any]:
        """A time of the source as a line has it, with the time of day where there is one."""
        day = self._day(seconds)
        return {"time": round(seconds, 3), **({} if day is None else {"utc": utc.iso(day)})}

    def _day(self, seconds: float) -> datetime | None:
        """The time of day at a time of a live source; None for a file."""
        return None if self._zero is None else self._zero + timedelta(seconds=seconds)

    def _grow(self, clip: _Clip) -> None:
        """Write what waits, up to the clip's end."""
        check_room([self._folder.path], {clip.file.temporary: clip.file.written}, reserve=_RESERVE)
        # those that went without being written came after the clip's end
        for number in range(max(clip.next, self._waiting.first), self._waiting.count):
            packet = self._waiting[number]
            if packet.seconds > clip.until:
                return
            clip.file.write(packet)
            clip.next, clip.end = number + 1, packet.seconds

    def _lose(self, error: Exception) -> dict[str, Any]:
        """Count a clip that cannot be written, and free its room on the disk."""
        clip, self.clip = self.clip, None
        self._counts.lost += 1
        self._counts.why = why = _reason(error)
        told: dict[str, Any] = {"time": None, "source": self._about.name, "kind": "clip"}
        if clip is not None:
            clip.file.discard()
            told |= {**self._when(clip.end), "clip": self._folder.name(clip.file.path)}
        return {**told, "lost": True, "why": why}


class Clips:
    """Clips of all sources.

    Args:
        settings: which events, and how long.
        out: the job's folder.
        sources: one each.
        say: told of a clip that was lost; of several in a row, the first.

    Attributes:
        counts: what became of the clips.
    """

    def __init__(
        self,
        settings: ClipSettings,
        out: Path,
        sources: Sequence[ClipSource],
        say: Callable[[str], None],
    ) -> None:
        self.counts, self._say, self._kind = ClipCounts(), say, settings.clip_on
        keep = None if settings.keep is None else 1e9 * settings.keep
        self._folder = ClipFolder(out / "clips", keep)
        self._sources = [
            _SourceClips(about, settings, self._folder, self.counts) for about in sources
        ]
        self._told = 0  # clips that were written when the last loss was told

    def add(
        self, frame: Frame, picture: Image, events: Sequence[Event]
    ) -> tuple[str | None, list[dict[str, Any]]]:
        """Take a frame with what happened in it.

        Args:
            frame: of a video; nothing is made of images.
            picture: the frame as a clip shows it.
            events: that happened in it.

        Returns:
            The clip that shows the events, relative to the job's folder, and what became of clips,
            as lines for `events.jsonl`.
        """
        if frame.time_ms is None:
            return None, []
        source = self._sources[frame.source_index]
        wanted = sum(self._kind in ("event", event.kind) for event in events)
        ended = source.add(frame, picture, wanted)
        name = None
        if wanted and source.clip is not None:
            name = self._folder.name(source.clip.file.path)
        if not self._folder.make_room(s.clip.file.bytes for s in self._sources if s.clip):
            ended += source.end()  # it alone is as large as all may be
        self._tell(ended)
        return name, ended

    def close(self) -> list[dict[str, Any]]:
        """End the clips that grow; returns what became of them."""
        ended = [line for source in self._sources for line in source.end()]
        self._folder.make_room(())
        self._tell(ended)
        self.discard()
        return ended

    def discard(self) -> None:
        """Delete the clips that grow."""
        for source in self._sources:
            source.discard()

    def _tell(self, ended: Sequence[dict[str, Any]]) -> None:
        self.counts.deleted = self._folder.deleted
        for line in ended:
            if "lost" in line and self._told != self.counts.written + 1:
                self._told = self.counts.written + 1
                self._say(f"lost a clip of {line['source']}, and the job goes on: {line['why']}")


def _reason(error: Exception) -> str:
    """What is wrong and why, without what to do: the job goes on."""
    if isinstance(error, RetinartError):
        return f"{error.what}: {error.why}" if error.why else error.what
    return str(error)
