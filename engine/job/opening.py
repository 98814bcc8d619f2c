"""Open the files that a job writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retinart.engine.errors import BadInput
from retinart.engine.job.copies import USUAL_RATE, Copy, check_outputs, plan_copies, stems_of
from retinart.engine.job.outputs import Outputs
from retinart.engine.job.records import Note
from retinart.engine.job.settings import DetectJob
from retinart.engine.media.source import Source

if TYPE_CHECKING:
    from retinart.engine.evaluation.result_ids import ResultIds
    from retinart.engine.job.clips import Clips


def result_ids(
    job: DetectJob, sources: Sequence[Source], classes: Sequence[str]
) -> ResultIds | None:
    """How COCO results call images and classes; None if no COCO results are asked for.

    Raises:
        BadInput: the annotations are not of these sources, or cannot be used.
    """
    if job.coco is None:
        return None
    from retinart.engine.evaluation.result_ids import ids_of_annotations, ids_of_coco

    stills = all(source.stills for source in sources)
    paths = [path for source in sources for path in source.files]
    if job.annotations is None:
        return ids_of_coco(classes, paths if stills and len(sources) == 1 else (), job.coco)
    if not stills:
        raise BadInput(
            f"{job.annotations} cannot give ids to videos",
            why="it names images",
            fix="Give images, or leave out `annotations`",
        )
    return ids_of_annotations(classes, job.annotations, paths)


def open_outputs(
    job: DetectJob,
    sources: Sequence[Source],
    classes: Sequence[str],
    ids: ResultIds | None,
    note: Note,
    say: Callable[[str], None],
    told: Callable[[str, str], None],
) -> Outputs:
    """The files of a job, once it is sure that none of them overwrites a source or another one.

    Args:
        told: see `Outputs`.

    Raises:
        BadInput: one would, or one cannot be written.
    """
    copies = [Copy() for _ in sources]
    if job.copies:
        copies = plan_copies(sources, job.out, audio=job.audio)
    read = [path for source in sources for path in source.files]
    read += [] if job.annotations is None else [job.annotations]
    written: list[Path | None] = [
        job.out / name for name in ("detections.jsonl", "events.jsonl", "summary.json")
    ]
    written += [job.coco, job.csv]
    written += [path for copy in copies for path in (copy.path, *copy.pictures.values())]
    check_outputs(read, [path for path in written if path is not None])
    return Outputs(
        job.out,
        copies,
        detections_file=job.detections_file,
        coco=job.coco,
        csv=job.csv,
        classes=classes,
        ids=ids,
        note=note,
        tracks=job.track,
        live=any(source.live for source in sources),
        clips=_open_clips(job, sources, say),
        told=told,
    )


def _open_clips(
    job: DetectJob, sources: Sequence[Source], say: Callable[[str], None]
) -> Clips | None:
    if job.clips is None:
        return None
    from retinart.engine.job.clips import Clips, ClipSource

    if all(source.stills for source in sources):
        raise BadInput("there are no clips of images", why="they have no times", fix="Give a video")
    about = [
        ClipSource(name=s.name, stem=stem, fps=s.rate or USUAL_RATE)
        for s, stem in zip(sources, stems_of(sources), strict=True)
    ]
    return Clips(job.clips, job.out, about, say)
