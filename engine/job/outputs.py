"""What a job leaves behind: annotated copies, and records as JSON lines, COCO results and CSV."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

import cv2

from retinart.engine.common.files import atomic_path, new_folder
from retinart.engine.errors import BadInput
from retinart.engine.job.disk import check_room
from retinart.engine.job.records import COCOResults, CSVRows, JSONLines, Record
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image
from retinart.engine.media.video import VideoWriter


class LineFile:
    """A text file that grows by whole lines, each there to read as soon as it is written.

    It gets its name, and takes the place of an older one, with the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._temporary = self._stack.enter_context(atomic_path(path))
        self._file = self._temporary.open("wb", buffering=0)
        self._length = 0

    def write(self, text: str) -> None:
        """Add lines; after an error, such as a full disk, those before are whole.

        Raises:
            OSError: they cannot be written.
        """
        # a file's name need not be UTF-8: its bytes go through as they are
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(self._length)
            self._file.seek(self._length)
            raise
        if not self._length:
            self._stack.close()  # gives it its name
        self._length = self._file.tell()

    def close(self) -> None:
        """Close it; one without a line is not kept."""
        self._file.close()
        if not self._length:
            self._stack.__exit__(OSError, OSError(), None)


@dataclass(kw_only=True)
class Copy:
    """Where a source's annotated frames go.

    Attributes:
        path: the video; None where each image goes to its own path in `pictures`.
        fps: frame rate of the video.
        size: (height, width) of the video; None takes the first frame's.
        pictures: by source image its copy.
    """

    path: Path | None = None
    fps: float = 25.0
    size: tuple[int, int] | None = None
    pictures: Mapping[str, Path] = field(default_factory=dict)


class Outputs:
    """The files of a job, open together.

    Args:
        out: folder for annotated copies and `detections.jsonl`.
        copies: one a source, or nothing for no annotated copies.
        coco, csv: further files, or None.
        classes: names.
        image_ids: see `COCOResults`.
        tracks: whether detections have ids.

    Attributes:
        paths: what there is of them at the end.
        problems, notes: what could not be ended, and what to know, after `close`.
    """

    def __init__(
        self,
        out: Path,
        copies: Sequence[Copy],
        *,
        coco: Path | None,
        csv: Path | None,
        classes: Sequence[str],
        image_ids: Mapping[str, int],
        tracks: bool,
    ) -> None:
        self.paths: list[Path] = []
        self.problems: list[Exception] = []
        self.notes: list[str] = []
        self._out, self._copies, self._classes = out, copies, classes
        self._videos: dict[int, VideoWriter] = {}
        self._taken = {p.resolve() for copy in copies for p in copy.pictures.values()}
        self._stack = ExitStack()  # in case this does not come to its end
        self._ends: list[tuple[Path, ExitStack, COCOResults | CSVRows]] = []
        self._growing: list[Path] = []  # their temporary files
        self._folders = {out, *(path.parent for path in (coco, csv) if path is not None)}
        with self._stack:
            self._stack.enter_context(new_folder(out))
            self._lines = LineFile(out / "detections.jsonl")
            self._stack.callback(self._lines.close)
            self._jsonl = JSONLines(self._lines, classes)
            count = len(copies) > 1
            if coco is not None:
                self._open(coco, partial(COCOResults, image_ids=image_ids, count=count))
            if csv is not None:
                self._open(csv, partial(CSVRows, tracks=tracks))
            for copy in copies:
                if copy.path is not None and copy.path.is_dir():  # said before the work
                    raise BadInput(
                        f"cannot write {copy.path}", why="it is a folder", fix="Choose another name"
                    )
            self._stack = self._stack.pop_all()

    def write(self, frame: Frame, record: Record, picture: Image | None) -> None:
        """Write a frame's results.

        Raises:
            OutOfRoom: what is left on the disk is needed to end the files.
            OSError: something cannot be written.
        """
        files = {v.temporary: v.written for v in self._videos.values()}
        files |= dict.fromkeys(self._growing, 0)
        check_room(self._folders, {**files, self._lines.path: 0} if self.paths else files)
        if picture is not None:
            self._annotate(frame, picture)
        self._jsonl.write(record)
        if self._lines.path not in self.paths:
            self.paths.insert(0, self._lines.path)
        for _, _, writer in self._ends:
            writer.write(record)

    def close(self) -> None:
        """End all files, each whether or not another one fails."""
        for path, stack, writer in self._ends:
            if self._try(partial(_end, stack, writer)):
                self.paths.append(path)
        for place in sorted(self._videos):
            video = self._videos[place]
            if self._try(partial(video.__exit__, None, None, None)):
                self.paths.append(video.path)
                if video.times_lost:
                    self.notes.append(f"{video.path} has a constant frame rate")
        if any(copy.pictures for copy in self._copies) and self.paths:
            self.paths.append(self._out)
        self._ends, self._videos = [], {}
        self._lines.close()
        self._stack.pop_all()

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop what was not closed."""
        self._stack.__exit__(kind or OSError, error or OSError(), trace)

    def _open(self, path: Path, kind: Callable[..., COCOResults | CSVRows]) -> None:
        stack = self._stack.enter_context(ExitStack())
        temporary = stack.enter_context(atomic_path(path))
        self._growing.append(temporary)
        file = stack.enter_context(
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        )
        self._ends.append((path, stack, kind(file, self._classes)))

    def _annotate(self, frame: Frame, picture: Image) -> None:
        copy = self._copies[frame.place]
        if copy.path is None:
            _write_picture(copy.pictures[frame.source], picture, self._taken)
            return
        video = self._videos.get(frame.place)
        if video is None:
            size = copy.size or (picture.shape[0], picture.shape[1])
            video = VideoWriter(copy.path, fps=copy.fps, size=size)
            self._videos[frame.place] = video
            self._stack.push(video)
        video.write(picture, frame.time_ms)

    def _try(self, end: Callable[[], object]) -> bool:
        try:
            end()
        except (OSError, BadInput) as error:
            self.problems.append(error)
            return False
        return True


def _end(stack: ExitStack, writer: COCOResults | CSVRows) -> None:
    with stack:
        if isinstance(writer, COCOResults):
            writer.close()


def _write_picture(target: Path, picture: Image, taken: set[Path]) -> None:
    """Write in the source's format, or as PNG where OpenCV cannot (colour in .pgm, huge JPEGs).

    The PNG gets a name that is not `taken` by another source's copy.
    """
    png = target.with_name(f"{target.name}.png")
    while png.resolve() in taken:
        png = png.with_name(f"{png.name}.png")
    for path in (target, png):
        data = _encode(path.suffix, picture)
        if data is not None:
            with atomic_path(path) as temporary:
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


def check_outputs(sources: Sequence[Path], outputs: Sequence[Path]) -> None:
    """See that no output is a source or another output, before anything is written.

    Raises:
        BadInput: one is.
    """
    kept = {path.resolve(): path for path in sources}
    seen: set[Path] = set()
    for output in outputs:
        place = output.resolve()
        if place in kept:
            raise BadInput(
                f"the output {output} would overwrite its source {kept[place]}",
                fix="Choose another `out`, or another name",
            )
        if place in seen:
            raise BadInput(
                f"two outputs would be written to {output}",
                fix="Give `coco`, `csv` and `out` places of their own",
            )
        seen.add(place)


def copies_of_images(out: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Where each image's annotated copy goes.

    Images of several folders keep their folders, so that equal names do not meet.
    """
    absolute = [Path(os.path.normpath(path.absolute())) for path in paths]
    root = os.path.commonpath([path.parent for path in absolute])
    names = [path.relative_to(root) for path in absolute]
    return {str(p): out / name for p, name in zip(paths, names, strict=True)}
