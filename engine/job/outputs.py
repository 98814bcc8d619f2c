"""What a job leaves behind: annotated copies, and records as JSON lines, COCO results and CSV."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from retinart.engine.common.files import atomic_path
from retinart.engine.errors import BadInput
from retinart.engine.job.copies import Copy
from retinart.engine.job.disk import check_room
from retinart.engine.job.records import (
    COCOResults,
    CSVRows,
    Note,
    Record,
    event_line,
)
from retinart.engine.job.text_files import LineFile, RecordFile, deleted
from retinart.engine.keep.counting import Event
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image

if TYPE_CHECKING:
    from retinart.engine.evaluation.result_ids import ResultIds
    from retinart.engine.job.clips import ClipCounts, Clips
    from retinart.engine.media.video_writer import VideoWriter


class Outputs:
    """The files of a job, open together.

    Args:
        out: folder for annotated copies and JSON lines.
        copies: one for each source.
        detections_file: whether `detections.jsonl` is written.
        coco, csv: further files, or None.
        classes: names.
        ids, note: see `COCOResults`; None without `coco`.
        tracks: whether detections have ids.
        live: whether a source is live.
        clips: makes clips of events, or None.
        told: called with the source and the text of each line, without its end.

    Attributes:
        paths: what was written, complete after `close`.
        problems: what could not be ended, after `close`.

    Raises:
        BadInput: a file cannot be written there; then none is left.
    """

    def __init__(
        self,
        out: Path,
        copies: Sequence[Copy],
        *,
        detections_file: bool,
        coco: Path | None,
        csv: Path | None,
        classes: Sequence[str],
        ids: ResultIds | None,
        note: Note,
        tracks: bool,
        live: bool,
        clips: Clips | None = None,
        told: Callable[[str, str], None] = lambda source, line: None,
    ) -> None:
        self.paths: list[Path] = []
        self.problems: list[Exception] = []
        self._out, self._copies, self._clips = out, copies, clips
        self._taken = {p.resolve() for copy in copies for p in copy.pictures.values()}
        self._folders = {out, *(path.parent for path in (coco, csv) if path is not None)}
        self._videos: dict[int, VideoWriter] = {}
        self._files: list[RecordFile] = []
        self._classes, self._told = classes, told
        self._written = False  # a first record
        self._lines = LineFile(out / "detections.jsonl") if detections_file else None
        self._events: LineFile | None = None  # opened for the first event
        try:
            if coco is not None and ids is not None:
                results = partial(COCOResults, ids=ids, note=note, count=len(copies) > 1)
                self._files.append(RecordFile(coco, results))
            if csv is not None:
                rows = partial(CSVRows, classes=classes, tracks=tracks, live=live)
                self._files.append(RecordFile(csv, rows))
            for copy in copies:
                if copy.path is not None and copy.path.is_dir():  # seen before the work
                    raise BadInput(
                        f"cannot write {copy.path}", why="it is a folder", fix="Choose another name"
                    )
        except BaseException:
            self.discard()
            raise

    def write(self, frame: Frame | None, record: Record, picture: Image | None) -> None:
        """Write a frame's results; without a picture its frame is not needed.

        Raises:
            OutOfRoom: what is left on the disk is needed to end the files.
            BadInput, OSError: something cannot be written, or was deleted since.
        """
        self._check_there()
        try:
            self._write(frame, record, picture)
        except FileNotFoundError:
            self._check_there()  # the folder may have gone after the check above
            if not self._out.exists():
                raise deleted(self._out) from None
            raise

    def _write(self, frame: Frame | None, record: Record, picture: Image | None) -> None:
        open_files = {v.temporary: v.written for v in self._videos.values()}
        open_files |= dict.fromkeys((file.temporary for file in self._files), 0)
        open_files |= dict.fromkeys((file.path for file in self._grown), 0)
        check_room(self._folders, open_files)
        if frame is not None and picture is not None:
            self._annotate(frame, picture)
        self._line(self._lines, record.source, json.dumps(record.to_json(self._classes)))
        for file in self._files:
            file.write(record)
        self._written = True

    def _line(self, file: LineFile | None, source: str, line: str) -> None:
        if file is not None:
            file.write(line + "\n")  # one call a line, so that Ctrl-C cannot leave half of one
            if file.path not in self.paths:
                self.paths.append(file.path)
        self._told(source, line)

    @property
    def _grown(self) -> list[LineFile]:
        """The files of JSON lines that have a line."""
        files = (self._lines, self._events)
        return [file for file in files if file is not None and file.path in self.paths]

    def _check_there(self) -> None:
        for file in self._grown:
            file.check_there()

    def write_events(
        self, frame: Frame, events: Sequence[Event], picture: Image | None = None
    ) -> None:
        """Write what happened in a frame, a line an event, and the frame into clips.

        Args:
            frame: the next one of its source.
            events: in order.
            picture: the frame as clips show it; not needed without clips.

        Raises:
            OSError: a line cannot be written.
        """
        clip, ended = None, list[dict[str, Any]]()
        if self._clips is not None and picture is not None:
            clip, ended = self._clips.add(frame, picture, events)
        for event in events:
            self._event(frame.source, event_line(event, frame, self._classes, clip))
        for line in ended:
            self._event(line["source"], json.dumps(line))

    def _event(self, source: str, line: str) -> None:
        if self._events is None:
            self._events = LineFile(self._out / "events.jsonl")
        self._line(self._events, source, line)

    def close(self) -> None:
        """End all files, each whether or not another one fails."""
        if self._clips is not None:
            try:
                for line in self._clips.close():
                    self._event(line["source"], json.dumps(line))
            except OSError as error:
                self.problems.append(error)
            if self._clips.counts.written:
                self.paths.append(self._out / "clips")
        videos = [self._videos[index] for index in sorted(self._videos)]
        files: list[RecordFile | VideoWriter] = [*self._files, *videos]
        for file in files:
            try:
                file.commit()
            except (OSError, BadInput) as error:
                self.problems.append(error)
            else:
                self.paths.append(file.path)
        if any(copy.pictures for copy in self._copies) and self._written:
            self.paths.append(self._out)
        for lines in self._grown:
            if not lines.there:
                self.paths.remove(lines.path)
        self._close_lines()

    def discard(self) -> None:
        """Delete what was not ended; JSON lines that were written stay."""
        for file in self._files:
            file.discard()
        for video in self._videos.values():
            video.discard()
        if self._clips is not None:
            self._clips.discard()
        self._close_lines()

    def _close_lines(self) -> None:
        for lines in (self._lines, self._events):
            if lines is not None:
                lines.close()

    @property
    def clips(self) -> ClipCounts | None:
        """What became of clips; None without any."""
        return None if self._clips is None else self._clips.counts

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()

    def _annotate(self, frame: Frame, picture: Image) -> None:
        copy = self._copies[frame.source_index]
        if copy.path is None:
            write_picture(copy.pictures[frame.source], picture, self._taken)
            return
        video = self._videos.get(frame.source_index)
        if video is None:
            size = copy.size or (picture.shape[0], picture.shape[1])
            from retinart.engine.media.video_writer import VideoWriter

            video = VideoWriter(copy.path, fps=copy.fps, size=size, sound=copy.sound)
            self._videos[frame.source_index] = video
        video.write(picture, frame.time_ms)


def write_picture(target: Path, picture: Image, taken: set[Path]) -> None:
    """Write in the source's format, or as PNG where OpenCV cannot (colour in .pgm, huge JPEGs).

    The PNG gets a name that is not `taken` by another source's copy.
    """
    png = target.with_name(f"{target.name}.png")
    while png.resolve() in taken:
        png = png.with_name(f"{png.name}.png")
    for path in (target, png):
        data = _encode(path.suffix, picture)
        if data is not None:
            with atomic_path(path, durable=False) as temporary:
                temporary.write_bytes(data)
            return
    raise BadInput(
        f"cannot write the picture {target}",
        why="OpenCV could encode it neither in its source's format nor as PNG",
        fix="Leave the pictures out with `copies=False`",
    )


def _encode(suffix: str, picture: Image) -> bytes | None:
    """A picture file's bytes, or None where OpenCV cannot (it crashes on suffixes out of UTF-8)."""
    try:
        written, data = cv2.imencode(suffix, picture) if suffix.isascii() else (False, None)
    except cv2.error:  # a suffix that OpenCV has no encoder for
        return None
    return data.tobytes() if written and data is not None else None
