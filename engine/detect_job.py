"""A detection job: images or a video in, annotated copies and records out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from retinart.engine.detector import Detector
from retinart.engine.draw import draw
from retinart.engine.errors import BadInput
from retinart.engine.files import atomic_path, make_folder
from retinart.engine.images import Image, list_images, read_image
from retinart.engine.progress import Progress
from retinart.engine.records import COCOResults, CSVRows, JSONLines, Record
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
    is_video = Path(job.source).suffix.lower() in VIDEO_SUFFIXES
    summary = DetectSummary()
    paths = [] if is_video else list_images(job.source)
    with ExitStack() as stack:
        video = stack.enter_context(VideoReader(Path(job.source))) if is_video else None
        make_folder(job.out)
        writers = [
            _open(stack, summary, path, kind, detector.classes)
            for path, kind in (
                (job.out / "detections.jsonl", JSONLines),
                (job.coco, COCOResults),
                (job.csv, CSVRows),
            )
            if path is not None
        ]
        if video is not None:
            total, frames = video.announced, _video_frames(video, summary)
            annotate = _video_annotator(stack, summary, job, video)
        else:
            total, frames = len(paths), _image_frames(paths, summary)
            annotate = _image_annotator(summary, job, _targets(job, paths))
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
    stack: ExitStack, summary: DetectSummary, job: DetectJob, video: VideoReader
) -> Callable[[Record, Image], None]:
    target = _beside(job, video.path, f"{video.path.stem}.mp4")
    temporary = stack.enter_context(atomic_path(target))
    writer = VideoWriter(temporary, fps=video.fps, size=video.size)
    stack.callback(writer.close)
    summary.outputs.append(target)
    return lambda record, picture: writer.write(picture)


def _image_annotator(
    summary: DetectSummary, job: DetectJob, targets: dict[str, Path]
) -> Callable[[Record, Image], None]:
    summary.outputs.append(job.out)

    def annotate(record: Record, picture: Image) -> None:
        _write_picture(targets[record.source], picture)

    return annotate


def _targets(job: DetectJob, paths: list[Path]) -> dict[str, Path]:
    """Where each source's annotated copy goes, checked before the first is written.

    Sources of several folders keep their folders, so that equal names do not meet.
    """
    absolute = [Path(os.path.normpath(path.absolute())) for path in paths]
    root = os.path.commonpath([path.parent for path in absolute])
    names = [str(path.relative_to(root)) for path in absolute]
    return {str(p): _beside(job, p, name) for p, name in zip(paths, names, strict=True)}


def _write_picture(target: Path, picture: Image) -> None:
    """Write in the source's format, or as PNG where OpenCV cannot (colour in .pgm, huge JPEGs)."""
    for path in (target, target.with_name(f"{target.name}.png")):
        with suppress(_Refused), atomic_path(path) as temporary:
            try:
                written = cv2.imwrite(str(temporary), picture)
            except cv2.error:  # a suffix that OpenCV has no encoder for
                written = False
            if not written:
                raise _Refused
            return
    raise BadInput(
        f"cannot write the picture {target}",
        why="OpenCV could encode it neither in its source's format nor as PNG",
        fix="See that the disk is not full",
    )


class _Refused(Exception):
    """OpenCV did not write a picture."""


def _beside(job: DetectJob, source: Path, name: str) -> Path:
    """A path in the output folder that is not the source itself."""
    target = job.out / name
    if target.resolve() == source.resolve():
        raise BadInput(
            f"the annotated copy would overwrite its source {source}",
            fix="Choose another folder with --out",
        )
    return target
