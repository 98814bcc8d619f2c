"""Detections as text: one JSON line an image or frame, COCO results, CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from retinart.engine.detections import Detections


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image or frame with what was found in it.

    Attributes:
        source: path of the image or the video.
        frame: index in the video or in the list of images, from 0.
        time_ms: position in the video, None for an image.
        width, height: of the source, in pixels.
        detections: in pixels of the source.
    """

    source: str
    frame: int
    time_ms: float | None
    width: int
    height: int
    detections: Detections

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """The object of a line in `detections.jsonl`."""
        return {
            "source": self.source,
            "frame": self.frame,
            "time_ms": None if self.time_ms is None else round(self.time_ms, 3),
            "width": self.width,
            "height": self.height,
            "detections": [
                {
                    "box": [round(float(v), 2) for v in box],
                    "score": round(score, 5),
                    "class_id": label,
                    "class": classes[label],
                }
                for box, score, label in self.detections
            ],
        }


class JSONLines:
    """Writes records to an open file, a line each."""

    def __init__(self, file: TextIO, classes: Sequence[str]) -> None:
        self._file, self._classes = file, classes

    def write(self, record: Record) -> None:
        """Add a line."""
        # one call a line, so that Ctrl-C cannot leave half of one
        self._file.write(json.dumps(record.to_json(self._classes)) + "\n")


class CSVRows:
    """Writes records to an open file, a row a detection."""

    COLUMNS = ("source", "frame", "time_ms", "x1", "y1", "x2", "y2", "score", "class_id", "class")

    def __init__(self, file: TextIO, classes: Sequence[str]) -> None:
        self._writer, self._classes = csv.writer(file), classes
        self._writer.writerow(self.COLUMNS)

    def write(self, record: Record) -> None:
        """Add the rows."""
        data = record.to_json(self._classes)
        for d in data["detections"]:
            self._writer.writerow(
                [
                    *(data[key] for key in ("source", "frame", "time_ms")),
                    *d["box"],
                    *(d[key] for key in ("score", "class_id", "class")),
                ]
            )


class COCOResults:
    """Writes records as a COCO results list.

    `category_id` is the class index. `retinart eval` maps classes to an annotation file's ids.

    Args:
        file: open for text.
        classes: not used, the format holds ids only.
        image_ids: by source; without it `image_id` is the record's index.
    """

    def __init__(
        self, file: TextIO, classes: Sequence[str], image_ids: Mapping[str, int] | None = None
    ) -> None:
        del classes
        self._file, self._first, self._image_ids = file, True, image_ids or {}
        self._file.write("[")

    def write(self, record: Record) -> None:
        """Add the detections."""
        image_id = self._image_ids.get(record.source, record.frame)
        for box, score, label in record.detections:
            result = coco_result(image_id, label, [float(v) for v in box], score)
            self._file.write(("\n" if self._first else ",\n") + json.dumps(result))
            self._first = False

    def close(self) -> None:
        """End the list."""
        self._file.write("\n]\n")


def coco_image_ids(paths: Sequence[Path]) -> dict[str, int]:
    """By path the number that it is named after, as COCO's images are, if all are named after
    different numbers; else nothing: with some of them names and indices could meet."""
    numbers = {str(path): int(path.stem) for path in paths if path.stem.isdecimal()}
    return numbers if len(set(numbers.values())) == len(paths) else {}


def coco_result(
    image_id: int, category_id: int, box: Sequence[float], score: float
) -> dict[str, Any]:
    """One entry of a COCO results list; the box xyxy becomes x, y, width, height."""
    x1, y1, x2, y2 = box
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
        "score": round(score, 6),
    }
