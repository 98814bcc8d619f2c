"""A detection job whose pictures Ray's actors detect on: `retinart detect --ray`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinart.engine.cluster.actor import ActorSettings, info_of
from retinart.engine.cluster.plan import Shard, in_turn, picture_sources, plan
from retinart.engine.cluster.pool import Pool, PoolSettings
from retinart.engine.cluster.session import HERE, ray_session
from retinart.engine.cluster.shards import PICTURES, FinishedShards, digest_of
from retinart.engine.common.files import sha256
from retinart.engine.common.progress import Progress
from retinart.engine.common.wording import counted
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.picture_result import PictureResult
from retinart.engine.evaluation.problems import Problems
from retinart.engine.job.opening import open_outputs, result_ids
from retinart.engine.job.records import Record
from retinart.engine.job.settings import DetectJob
from retinart.engine.job.stop import StopRequest, stop_on_signals
from retinart.engine.job.summary import DetectSummary, SourceSummary
from retinart.engine.media.image_source import ImageSource
from retinart.engine.media.images import Note
from retinart.engine.reached_limits import ReachedLimits

FOLDER = "shards"  # in the folder of results, until they are written


@dataclass(frozen=True, kw_only=True)
class RayJob:
    """Where a job runs.

    Attributes:
        actor: what each actor loads.
        address: see `ray_session`.
        pool: how many actors there are.
        shard: most pictures of a shard.
        overwrite: delete the finished shards of another job.
    """

    actor: ActorSettings
    address: str = HERE
    pool: PoolSettings = field(default_factory=PoolSettings)
    shard: int = PICTURES
    overwrite: bool = False


def run_ray_job(job: DetectJob, on: RayJob, *, stop: StopRequest) -> DetectSummary:
    """Detect on pictures in Ray's actors; the files hold what `run_job` writes, without copies.

    What is finished stays in a folder of `job.out`. If the job or this process ends early, the
    same job is taken up from there.

    Args:
        job: what to detect on; the options that need the frames themselves are not looked at.
        on: where.
        stop: asks it to stop.

    Raises:
        BadInput, MissingDependency: something cannot be read, or see `ray_session` and `Pool`.
        KeyboardInterrupt: it was stopped. What is finished stays.
    """
    names = [job.source] if isinstance(job.source, str) else list(job.source)
    sources = picture_sources(names, job.stream)
    shards = plan(sources, job.stream, on.shard)
    if not shards:
        raise BadInput(
            f"no picture of {sources[0].name} was chosen", fix="Check `start`, `end` and `every`"
        )
    info = info_of(on.actor.model)
    limits = {name: on.actor.detector.get(name) for name in ("conf", "iou", "max_det")}
    least = max(job.draw_conf, info.thresholds.with_changes(**limits).score_thresh)
    summary = DetectSummary(
        started=job.started, draw_conf=least, limits=ReachedLimits(least), images=True
    )
    changed, progress = Problems(), Progress()
    ids = result_ids(job, sources, info.classes)
    summary.notes += [] if ids is None else ids.lines
    files = open_outputs(
        job, sources, info.classes, ids, changed.add, progress.line, lambda source, line: None
    )
    with files:
        finished = FinishedShards(job.out / FOLDER, _identity(on, shards), overwrite=on.overwrite)
        summary.seconds = _detect(on, shards, finished, progress, stop)
        for source_index, record in _records(shards, finished, sources, changed.add):
            files.write(None, record, None)
            _count(summary, record, info.classes)
            counts = sources[source_index].counts
            counts.taken, counts.detected = counts.taken + 1, counts.detected + 1
            counts.written += 1
        if summary.frames:
            files.close()
    finished.remove()
    for source in sources:
        source.counts.ended = "end"
        summary.skipped += source.unreadable
    if not summary.frames:
        path, why = summary.skipped[0]
        raise BadInput(
            f"no image at {sources[0].name} can be read",
            why=f"{path.name}: {why}",
            fix="Give another folder, or copy them again",
        )
    summary.outputs, summary.problems = files.paths, files.problems
    summary.sources = [
        SourceSummary(name=source.name, live=False, counts=source.counts, sound="none")
        for source in sources
    ]
    summary.notes += [*map(str, changed.records()), *summary.limits.notes("image", summary.frames)]
    path = job.out / "summary.json"
    summary.write(path)
    summary.outputs.append(path)
    return summary


def _identity(on: RayJob, shards: Sequence[Shard]) -> dict[str, Any]:
    """What two runs have in common if one may go on with the other's shards."""
    paths = (path for shard in shards for _, path in shard.pictures)
    return {
        "model": sha256(on.actor.model),
        "detector": {name: repr(value) for name, value in sorted(on.actor.detector.items())},
        "shard": on.shard,
        "sources": [[shard.source_index, len(shard.pictures)] for shard in shards],
        "pictures": digest_of(paths),
    }


def _detect(
    on: RayJob,
    shards: Sequence[Shard],
    finished: FinishedShards,
    progress: Progress,
    stop: StopRequest,
) -> float:
    """Detect on the shards that are not finished.

    Returns:
        The seconds that it took, without the start of Ray and the loading of the model; 0 where
        another run did a part of it.
    """
    todo = {i: shard.paths for i, shard in enumerate(shards) if i not in finished}
    total, left = (
        sum(len(s.pictures) for s in some) for some in (shards, [shards[i] for i in todo])
    )
    done = total - left
    if done:
        progress.line(f"{counted(done, 'picture')} of {total} are finished by an earlier run")
    if not todo:
        return 0.0
    with ray_session(on.address) as ray, stop_on_signals(stop):
        pool = Pool(ray, on.actor, on.pool, progress.line)
        progress.line(f"{counted(pool.size, 'actor')} of Ray with {counted(pool.cpus, 'CPU')} each")
        with closing(pool.run(todo, lambda: bool(stop.reason))) as results:
            for number, found in results:
                finished.write(number, found)
                done += len(found)
                progress.update(done, total, "pictures")
        if stop.reason:
            progress.line(
                f"{done} of {counted(total, 'picture')} are finished and kept; the same command "
                "with the same `out` goes on from there"
            )
            raise KeyboardInterrupt
    return pool.seconds if left == total else 0.0


def _records(
    shards: Sequence[Shard],
    finished: FinishedShards,
    sources: Sequence[ImageSource],
    note: Note,
) -> Iterator[tuple[int, Record]]:
    """The readable pictures in the order of `run_job`, with the index of their source."""

    def of_source(source_index: int) -> Iterator[tuple[int, Record]]:
        mine = [(i, s) for i, s in enumerate(shards) if s.source_index == source_index]
        pictures = (picture for _, shard in mine for picture in shard.pictures)
        results = finished.read(i for i, _ in mine)
        for (index, path), result in zip(pictures, results, strict=True):
            if result.why:
                sources[source_index].counts.broken += 1
                sources[source_index].unreadable.append((path, result.why))
                continue
            for kind, effect in result.changes:
                note(kind, effect, path.name)
            yield source_index, _record(index, path, result)

    return in_turn([of_source(i) for i in range(len(sources))])


def _record(index: int, path: Path, result: PictureResult) -> Record:
    return Record(
        source=str(path),
        frame=index,
        time_ms=None,
        width=result.width,
        height=result.height,
        detections=result.detections,
    )


def _count(summary: DetectSummary, record: Record, classes: Sequence[str]) -> None:
    found = record.detections
    sure = found.class_id[found.confidence >= summary.draw_conf]
    summary.frames += 1
    summary.detections += len(found)
    summary.confident.update(classes[i] for i in sure)
    summary.limits.add(found.limits)
