"""A detection job: images or a video in, annotated copies and records out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2

from retinart.engine.detector import Detector
from retinart.engine.draw import draw
from retinart.engine.errors import BadInput
from retinart.engine.files import atomic_path, new_folder
from retinart.engine.images import IMAGE_SUFFIXES, Image, list_images, read_image
from retinart.engine.progress import Progress
from retinart.engine.records import COCOResults, CSVRows, JSONLines, Record, coco_image_ids
from retinart.engine.timing import StageClock
from retinart.engine.video import VIDEO_SUFFIXES, VideoReader, VideoWriter


@dataclass(frozen=True, kw_only=True)
class DetectJob:
    """What to detect on and what to write.

    Attributes:
        source: an image, a folder, a glob or a video file.
        out: folder for annotated copies and `detections.jsonl`.
        coco, csv: further files to write, or None.
        draw_conf: detections below this score are written, but not drawn.
    """

    source: str
    out: Path
    coco: Path | None = None
    csv: Path | None = None
    draw_conf: float = 0.3


@dataclass(kw_only=True)
class DetectSummary:
    """What a job did.

    Attributes:
        frames: images or frames that went through the detector.
        detections: found in all of them.
        skipped: unreadable files, with the reason.
        announced: frames that the video announces; None for images.
        interrupted: Ctrl-C ended the job; what was done until then is kept.
        outputs: files and folders written.
        clock: times of the stages decode, resize, infer, nms, results, draw and write.
    """

    frames: int = 0
    detections: int = 0
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    announced: int | None = None
    interrupted: bool = False
    outputs: list[Path] = field(default_factory=list)
    clock: StageClock = field(default_factory=StageClock)

    @property
    def ended_early(self) -> bool:
        """Whether the video gave fewer frames than it announces, without being interrupted."""
        return bool(self.announced) and not self.interrupted and self.frames < (self.announced or 0)


def run_job(detector: Detector, job: DetectJob) -> DetectSummary:
    """Run a job. Files appear under their names when they are complete.

    Raises:
        BadInput: the source holds nothing that can be read, or an output cannot be written.
    """
    summary = DetectSummary()
    with ExitStack() as stack:
        video = _open_video(job.source)
        if video is not None:
            stack.enter_context(video)
        paths = list_images(job.source) if video is None else [video.path]
        results = [job.out / "detections.jsonl", *(p for p in (job.coco, job.csv) if p)]
        targets = _targets(job, paths, is_video=video is not None)
        _check_outputs(paths, [*results, *targets.values()])
        stack.enter_context(new_folder(job.out))
        image_ids = coco_image_ids(paths) if video is None else {}
        writers = [
            _open(stack, summary, path, kind, detector.classes)
            for path, kind in (
                (job.out / "detections.jsonl", JSONLines),
                (job.coco, partial(COCOResults, image_ids=image_ids)),
                (job.csv, CSVRows),
            )
            if path is not None
        ]
        if video is not None:
            total, frames = video.announced, _video_frames(video, summary)
            annotate = _video_annotator(stack, summary, targets[str(video.path)], video)
        else:
            total, frames = len(paths), _image_frames(paths, summary)
            annotate = _image_annotator(summary, job, targets)
        progress = Progress()
        try:
            for path, index, time_ms, image in frames:
                found = detector(image, clock=summary.clock)
                record = Record(
                    source=str(path),
                    frame=index,
                    time_ms=time_ms,
                    width=image.shape[1],
                    height=image.shape[0],
                    detections=found,
                )
                with summary.clock("draw"):
                    sure = found[found.confidence >= job.draw_conf]
                    picture = draw(image, sure, detector.classes)
                with summary.clock("write"):
                    annotate(record, picture)
                    for writer in writers:
                        writer.write(record)
                summary.frames += 1
                summary.detections += len(found)
                progress.update(summary.frames, total, f"{len(found)} objects")
        except KeyboardInterrupt:  # what was done until now is whole and is kept
            if not summary.frames:
                raise
            summary.interrupted = True
        if not summary.frames and not summary.interrupted:
            path, why = summary.skipped[0]
            raise BadInput(f"no image at {job.source} can be read", why=f"{path.name}: {why}")
        for writer in writers:
            if isinstance(writer, COCOResults):
                writer.close()
    return summary


def _open(
    stack: ExitStack,
    summary: DetectSummary,
    path: Path,
    kind: Callable[..., JSONLines | COCOResults | CSVRows],
    classes: tuple[str, ...],
) -> JSONLines | COCOResults | CSVRows:
    temporary = stack.enter_context(atomic_path(path))
    # a file's name need not be UTF-8: its bytes go through as they are
    file = stack.enter_context(
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    )
    summary.outputs.append(path)
    return kind(file, classes)


# path, index, time in ms (None for an image), picture
_Input = tuple[Path, int, float | None, Image]


def _video_frames(video: VideoReader, summary: DetectSummary) -> Iterator[_Input]:
    summary.announced = video.announced
    frames = iter(video)
    while True:
        with summary.clock("decode"):
            frame = next(frames, None)
        if frame is None:
            summary.announced = video.announced  # what was a guess is known by now
            return
        yield video.path, frame.index, frame.time_ms, frame.image


def _image_frames(paths: list[Path], summary: DetectSummary) -> Iterator[_Input]:
    for index, path in enumerate(paths):
        try:
            with summary.clock("decode"):
                image = read_image(path)
        except BadInput as error:
            summary.skipped.append((path, error.why or error.what))
            continue
        yield path, index, None, image


def _video_annotator(
    stack: ExitStack, summary: DetectSummary, target: Path, video: VideoReader
) -> Callable[[Record, Image], None]:
    writer = stack.enter_context(VideoWriter(target, fps=video.fps, size=video.size))
    summary.outputs.append(target)
    return lambda record, picture: writer.write(picture)


def _image_annotator(
    summary: DetectSummary, job: DetectJob, targets: dict[str, Path]
) -> Callable[[Record, Image], None]:
    summary.outputs.append(job.out)
    taken = {target.resolve() for target in targets.values()}

    def annotate(record: Record, picture: Image) -> None:
        _write_picture(targets[record.source], picture, taken)

    return annotate


def _open_video(source: str) -> VideoReader | None:
    """The source as a video; None for images. A file that is named is tried, whatever its suffix.

    Raises:
        BadInput: it is a file, and neither.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES and not path.is_dir():
        return VideoReader(path)
    if suffix in IMAGE_SUFFIXES or not path.is_file():
        return None
    try:
        read_image(path)
    except BadInput as no_image:
        try:
            return VideoReader(path)
        except BadInput:
            raise BadInput(
                f"{path} can be read neither as an image nor as a video", why=no_image.why
            ) from no_image
    return None


def _targets(job: DetectJob, paths: Sequence[Path], *, is_video: bool) -> dict[str, Path]:
    """Where each source's annotated copy goes.

    Sources of several folders keep their folders, so that equal names do not meet.
    """
    if is_video:
        return {str(path): job.out / f"{path.stem}.mp4" for path in paths}
    absolute = [Path(os.path.normpath(path.absolute())) for path in paths]
    root = os.path.commonpath([path.parent for path in absolute])
    names = [path.relative_to(root) for path in absolute]
    return {str(p): job.out / name for p, name in zip(paths, names, strict=True)}


def _check_outputs(sources: Sequence[Path], outputs: Sequence[Path]) -> None:
    """See that no output is a source or another output, before anything is written."""
    kept = {path.resolve(): path for path in sources}
    seen: set[Path] = set()
    for output in outputs:
        place = output.resolve()
        if place in kept:
            raise BadInput(
                f"the output {output} would overwrite its source {kept[place]}",
                fix="Choose another folder with --out, or another name",
            )
        if place in seen:
            raise BadInput(
                f"two outputs would be written to {output}",
                fix="Give --coco, --csv and --out places of their own",
            )
        seen.add(place)


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
    )


def _encode(suffix: str, picture: Image) -> bytes | None:
    """A picture file's bytes, or None where OpenCV cannot (it crashes on suffixes out of UTF-8)."""
    try:
        written, data = cv2.imencode(suffix, picture) if suffix.isascii() else (False, None)
    except cv2.error:  # a suffix that OpenCV has no encoder for
        return None
    return data.tobytes() if written and data is not None else None
