"""Detections as text: one JSON line an image or frame, COCO results, CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retinart.engine.common import utc
from retinart.engine.common.csv_cells import plain_cell
from retinart.engine.detections import Detections
from retinart.engine.keep.counting import Event
from retinart.engine.media.frame import Frame

if TYPE_CHECKING:
    from retinart.engine.evaluation.result_ids import ResultIds

Note = Callable[[str, str, str], None]  # kind, effect and example of a note that is printed once


class Lines(Protocol):
    """What records are written to, such as a file that is open for text."""

    def write(self, text: str, /) -> object:
        """Add text."""


class Records(Protocol):
    """A form in which records are written to a file."""

    def write(self, record: Record) -> None:
        """Add a record."""

    def close(self) -> None:
        """Write what the form ends with; the file stays open."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image or frame with what was found in it.

    Attributes:
        source: path of the image or the video.
        frame: index in the video or in the list of images, from 0.
        time_ms: position in the video, None for an image.
        utc: when a live source's frame was received; None for files.
        width, height: of the source, in pixels.
        detections: in pixels of the source.
        still: whether they were taken over from the frame before.
    """

    source: str
    frame: int
    time_ms: float | None
    width: int
    height: int
    detections: Detections
    still: bool = False
    utc: datetime | None = None

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """The object of a line in `detections.jsonl`; with a tracker each detection has an id."""
        found, ids = self.detections, self.detections.tracker_id
        boxes = found.xyxy.astype(np.float64).round(2).tolist()
        scores = found.confidence.astype(np.float64).round(5).tolist()
        labels = found.class_id.tolist()
        tracks: list[dict[str, int | None]] = [{}] * len(found)
        if ids is not None:
            tracks = [{"track_id": _known(i)} for i in ids]
        return {
            "source": self.source,
            "frame": self.frame,
            "time_ms": None if self.time_ms is None else round(self.time_ms, 3),
            **({} if self.utc is None else {"utc": utc.iso(self.utc)}),
            "width": self.width,
            "height": self.height,
            **({"still": True} if self.still else {}),
            "detections": [
                {
                    "box": box,
                    "score": score,
                    "class_id": label,
                    "class": classes[label],
                    **track,
                }
                for box, score, label, track in zip(boxes, scores, labels, tracks, strict=True)
            ],
        }


def event_line(event: Event, frame: Frame, classes: Sequence[str], clip: str | None = None) -> str:
    """A line of `events.jsonl`, without its end; what its kind does not have is left out.

    Args:
        event: that happened in the frame.
        frame: of the event.
        classes: names.
        clip: that shows the event.
    """
    data = {
        "time": None if event.time is None else round(event.time, 3),
        "utc": None if frame.utc is None else utc.iso(frame.utc),
        "source": frame.source,
        "frame": event.frame,
        "kind": event.kind,
        "area": event.area,
        "direction": event.direction,
        "track": event.track,
        "class": classes[event.class_id],
        "dwell": None if event.dwell is None else round(event.dwell, 3),
        "lost": event.lost or None,
        "clip": clip,
    }
    kept = {k: v for k, v in data.items() if v is not None or k == "time"}
    return json.dumps(kept)


class CSVRows:
    """Writes records to an open file, a row a detection.

    Args:
        file: open for text.
        classes: names.
        tracks: add a column of ids.
        live: add a column of times in UTC, which only live sources have.
    """

    COLUMNS = ("source", "frame", "time_ms", "x1", "y1", "x2", "y2", "score", "class_id", "class")

    def __init__(
        self, file: Lines, classes: Sequence[str], *, tracks: bool = False, live: bool = False
    ) -> None:
        self._writer, self._classes, self._live = csv.writer(file), classes, live
        self._keys = ["score", "class_id", "class", *(["track_id"] if tracks else [])]
        self._writer.writerow([*self.COLUMNS, *self._keys[3:], *(["utc"] if live else [])])

    def write(self, record: Record) -> None:
        """Add the rows."""
        data = record.to_json(self._classes)
        for d in data["detections"]:
            self._writer.writerow(
                [
                    *(plain_cell(data[key]) for key in ("source", "frame", "time_ms")),
                    *d["box"],
                    *(plain_cell(d[key]) for key in self._keys),
                    *([data.get("utc")] if self._live else []),
                ]
            )

    def close(self) -> None:
        """See `Records`; rows need no end."""


class COCOResults:
    """Writes records as a COCO results list.

    Args:
        file: open for text.
        ids: how images and classes are called.
        count: the index of a record is the number of records before it.
        note: told about what is left out, as `Problems.add` is.
    """

    def __init__(self, file: Lines, ids: ResultIds, note: Note, *, count: bool = False) -> None:
        self._file, self._first, self._ids, self._note = file, True, ids, note
        self._count, self._written = count, 0
        self._file.write("[")

    def write(self, record: Record) -> None:
        """Add the detections."""
        number = self._written if self._count else record.frame
        self._written += 1
        if self._ids.lacks_image(record.source):
            self._note("images without an id", "left out of the COCO results", record.source)
            return
        found, tracks = record.detections, record.detections.tracker_id
        named = set[int]()
        for i, result in self._ids.entries(
            record.source, number, (record.height, record.width), found
        ):
            named.add(i)
            if tracks is not None:
                result["track_id"] = _known(tracks[i])
            self._file.write(("\n" if self._first else ",\n") + json.dumps(result))
            self._first = False
        for i in sorted(set(range(len(found))) - named):
            name = self._ids.classes[int(found.class_id[i])]
            self._note("detections without a category id", "left out of the COCO results", name)

    def close(self) -> None:
        """End the list."""
        self._file.write("\n]\n")


def _known(tracker_id: int) -> int | None:
    return int(tracker_id) if tracker_id >= 0 else None
