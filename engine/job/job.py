"""A detection job: images, videos or live sources in, annotated copies and records out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from retinart.engine.common.progress import Progress
from retinart.engine.common.timing import STAGES, StageName
from retinart.engine.common.wording import counted
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.problems import Problems
from retinart.engine.job.copies import USUAL_RATE
from retinart.engine.job.display_window import Window
from retinart.engine.job.draw import draw
from retinart.engine.job.draw_areas import draw_areas
from retinart.engine.job.opening import open_outputs, result_ids
from retinart.engine.job.records import Record
from retinart.engine.job.settings import DetectJob
from retinart.engine.job.stop import StopRequest
from retinart.engine.job.summary import DetectSummary, Sound, SourceSummary
from retinart.engine.job.tracking import SURE, Trackers
from retinart.engine.job.watchers import Watchers
from retinart.engine.keep.counting import AreaCounter, Tally
from retinart.engine.media.frame import Frame
from retinart.engine.media.source import Source
from retinart.engine.metrics.event_counts import EventCounts
from retinart.engine.metrics.figures import JobFigures
from retinart.engine.pipeline import Ended
from retinart.engine.reached_limits import ReachedLimits
from retinart.engine.stream import Step, Stream
from retinart.engine.view.board import Figures

_POLL_SECONDS = 0.1  # how soon a request to stop is noticed


def run_job(
    detector: Detector, job: DetectJob, *, stop: StopRequest | None = None
) -> DetectSummary:
    """Run a job until its sources end, or somebody or something stops it.

    JSON lines are there as they are written; the other files appear when they are complete. Once
    there is a result, Ctrl-C, a request to stop and errors end the job in order: files are ended
    and kept, and the summary says what happened.

    Args:
        detector: what detects.
        job: what to do.
        stop: through it another thread or a signal handler may ask the job to stop.

    Raises:
        BadInput: the source holds nothing that can be read, or an output cannot be written.
        KeyboardInterrupt: it was stopped before the first result; nothing was written.
    """
    return _Run(detector, job, stop or StopRequest()).run()


class _Run:
    """One run of a job."""

    def __init__(self, detector: Detector, job: DetectJob, stop: StopRequest) -> None:
        self._detector, self._job, self._stop = detector, job, stop
        least = max(job.draw_conf, detector.thresholds.score_thresh)
        self._summary = DetectSummary(
            started=job.started,
            draw_conf=least,
            skip_still=job.stream.skip_still is not None,
            limits=ReachedLimits(least),
        )
        self._progress = Progress()
        self._changed = Problems()
        self._counters: list[AreaCounter] = []
        self._window = Window("retinart") if job.show else None
        given = job.source
        names = [given] if isinstance(given, str) else list(given)
        stages: list[tuple[StageName, Callable[[Step], Step]]] = [("write", self._write)]
        if job.copies or job.show or job.clips:
            stages.insert(0, ("draw", self._draw))
        if job.track:
            stages.insert(0, ("track", self._track))
        self._stream = Stream(
            detector.runner,
            names,
            job.stream,
            stages=stages,
            say=self._progress.line,
            note=self._changed.add,
        )
        sources = self._sources = self._stream.sources.all
        self._summary.images = all(source.stills for source in sources)
        try:
            rates = [self._rate(source) for source in sources]
            self._trackers = Trackers(rates, job.tracker) if job.track else None
            counted = job.areas if job.track else None
            if counted is not None and counted.counts:
                self._counters = [AreaCounter(counted) for _ in sources]
            self._events = EventCounts(counted, len(sources), detector.classes)
            ids = result_ids(job, sources, detector.classes)
            self._summary.notes += [] if ids is None else ids.lines
            say = self._progress.line
            watchers = Watchers(job, detector, sources, self._figures, self._job_figures, say)
            self._watchers = watchers
            self._files = open_outputs(
                job, sources, detector.classes, ids, self._changed.add, say, watchers.send
            )
        except BaseException:
            self._stream.sources.close()
            raise
        self._first = self._last = 0.0
        self._scaled = set[int]()  # sources in whose frames the areas are scaled
        self._with_id = 0  # detections
        self._told = self._begun = time.perf_counter()

    def run(self) -> DetectSummary:
        """Run it."""
        summary = self._summary
        with closing(self._stream.sources), self._files as files, self._watchers as watchers:
            self._go()
            if not summary.frames:
                self._nothing(self._sources)
            files.close()  # the last clips' events go to the sinks, too
            summary.sinks = watchers.end()
            summary.outputs, summary.problems = files.paths, files.problems
            summary.clips = files.clips
            self._report(self._sources)
        return summary

    def _job_figures(self) -> JobFigures:
        summary, queues = self._summary, self._stream.queues
        return JobFigures(
            sources=[(source.name, source.counts) for source in self._sources],
            detections=dict(summary.confident),
            events=self._events.now(list(summary.confident)),
            stages=self._stream.times.stages(),
            ages={"detections": summary.to_detections, "result": summary.to_result},
            queues={name: (len(queue), queue.capacity) for name, queue in queues.items() if name},
            sinks=self._watchers.sinks,
            since_result=time.perf_counter() - (self._last or self._begun),
        )

    def _figures(self) -> Figures:
        dropped = [source.counts.dropped for source in self._sources]
        tallies = [self._summary.tallies.get(i) for i in range(len(self._sources))]
        counts = [[] if t is None else [f"{k}: {v}" for k, v in t.texts().items()] for t in tallies]
        return Figures(self._stream.times.stages(), dropped, counts)

    def _go(self) -> None:
        summary, stream = self._summary, self._stream
        with stream:
            while True:
                try:
                    if self._stop.reason and not summary.stop_reason:
                        summary.ended, summary.stop_reason = "interrupted", self._stop.reason
                        stream.stop()
                    self._show(stream.next(_POLL_SECONDS))
                except TimeoutError:
                    continue
                except Ended:
                    break
                except KeyboardInterrupt:
                    self._stop.request("Ctrl-C")
                except Exception as error:  # of a stage, after what had passed it was written
                    summary.ended, summary.error = "failed", error
                    break
            if self._window is not None:
                self._window.close()
        sources = [s.counts for s in self._sources]
        lost = any(c.ended == "lost" for c in sources)
        if summary.ended == "complete" and lost and not any(c.ended != "lost" for c in sources):
            summary.ended = "lost"

    def _track(self, step: Step) -> Step:
        assert self._trackers is not None
        pairs = zip(step.frames, step.found, strict=True)
        found = [self._trackers(frame.source_index, found) for frame, found in pairs]
        return replace(step, found=found, tallies=self._count(step.frames, found))

    def _count(self, frames: Sequence[Frame], found: Sequence[Detections]) -> list[Tally]:
        """What was counted at lines and in zones."""
        if not self._counters:
            return []
        return [
            self._counters[frame.source_index](
                one,
                size=(frame.image.shape[0], frame.image.shape[1]),
                time=None if frame.time_ms is None else frame.time_ms / 1000,
                frame=frame.index,
            )
            for frame, one in zip(frames, found, strict=True)
        ]

    def _draw(self, step: Step) -> Step:
        pictures, areas = [], self._job.areas
        for i, (frame, found) in enumerate(zip(step.frames, step.found, strict=True)):
            picture = draw(frame.image, self._sure(found), self._detector.classes)
            if areas is not None:
                draw_areas(picture, areas, step.tallies[i].texts() if step.tallies else {})
            pictures.append(picture)
        return replace(step, pictures=pictures)

    def _sure(self, found: Detections) -> Detections:
        """The detections that people mean: those that are drawn."""
        return found[found.confidence >= self._job.draw_conf]

    def _write(self, step: Step) -> Step:
        for i, (frame, found) in enumerate(zip(step.frames, step.found, strict=True)):
            height, width = frame.image.shape[:2]
            record = Record(
                source=frame.source,
                frame=frame.index,
                time_ms=frame.time_ms,
                width=width,
                height=height,
                detections=found,
                still=step.still[i],
                utc=frame.utc,
            )
            self._files.write(frame, record, step.pictures[i] if self._job.copies else None)
            self._watchers.show(frame, found)
            self._note_scale(frame)
            if step.tallies:
                picture = step.pictures[i] if self._job.clips else None
                self._files.write_events(frame, step.tallies[i].events, picture)
                self._events.add(frame.source_index, step.tallies[i].events)
                self._summary.tallies[frame.source_index] = step.tallies[i]
            self._last = time.perf_counter()
            self._first = self._first or frame.captured
            self._summary.to_detections.add(1000 * (step.done - frame.captured))
            self._summary.to_result.add(1000 * (self._last - frame.captured))
            self._summary.frames += 1
            self._summary.detections += len(found)
            classes = self._detector.classes
            self._summary.confident.update(classes[i] for i in self._sure(found).class_id)
            self._summary.limits.add(found.limits)
            if found.tracker_id is not None:
                self._with_id += int((found.tracker_id >= 0).sum())
            self._sources[frame.source_index].counts.written += 1
        return step

    def _note_scale(self, frame: Frame) -> None:
        """Note once for each source that the areas were drawn in a picture of another size."""
        if self._job.areas is None or frame.source_index in self._scaled:
            return
        height, width = frame.image.shape[:2]
        if how := self._job.areas.how_scaled(width, height):
            self._scaled.add(frame.source_index)
            self._summary.notes.append(f"{frame.source} has {how}")
            if self._sources[frame.source_index].live:  # the end may be weeks away
                self._progress.line(self._summary.notes[-1])

    def _show(self, step: Step) -> None:
        window = None if self._stop.reason else self._window
        if window is not None and not window.show(step.pictures):
            self._stop.request("the window was closed")
        counts = [s.counts for s in self._sources]
        total = sum(c.announced for c in counts) if all(c.announced for c in counts) else 0
        done = sum(c.skipped + c.broken for c in counts) + self._summary.frames
        if self._job.stats and time.perf_counter() - self._told >= self._job.stats:
            self._told = time.perf_counter()
            self._measure()
            self._progress.line(f"{self._summary.table()}\n{self._summary.counts()}")
        self._progress.update(min(done, total) if total else done, total, lambda: self._state(step))

    def _state(self, step: Step) -> str:
        """The figures so far, for the line on stderr."""
        age, written = self._summary.to_result, self._summary.frames
        found = sum(len(self._sure(found)) for found in step.found)
        rate = written / max(1e-9, self._last - self._first)
        text = f"{counted(found, 'object')}, {rate:.1f} fps"
        if self._stream.sources.live:
            dropped = sum(source.counts.dropped for source in self._sources)
            text += f", capture to result p95 {age.percentile(95):.0f} ms, {dropped} dropped"
        return text

    def _nothing(self, sources: Sequence[Source]) -> None:
        """There was no result: say why. Nothing is left of the outputs."""
        summary = self._summary
        if summary.interrupted:
            raise KeyboardInterrupt
        if summary.error is not None:
            raise summary.error
        for source in sources:
            if source.unreadable:
                path, why = source.unreadable[0]
                if source.name == str(path):
                    fix = "Give another image"
                    raise BadInput(f"cannot read the image {path}", why=why, fix=fix)
                raise BadInput(
                    f"no image at {source.name} can be read",
                    why=f"{path.name}: {why}",
                    fix="Give another folder, or copy them again",
                )
        self._stream.sources.check_received()
        raise BadInput(
            f"no frame of {sources[0].name} was chosen",
            fix="Check `start`, `end`, `every` and `max_fps`",
        )

    def _rate(self, source: Source) -> float:
        rate, limit = source.rate or USUAL_RATE, self._job.stream.max_fps
        return min(rate / self._job.stream.every, limit or rate)

    def _measure(self) -> None:
        """Bring the summary's figures up to now."""
        summary, stream = self._summary, self._stream
        summary.sources = [
            SourceSummary(
                name=source.name,
                live=source.live,
                counts=source.counts,
                sound=self._sound(source),
            )
            for source in self._sources
        ]
        summary.seconds = self._last - self._first
        stages = stream.times.stages()
        summary.stages = {name: stages[name] for name in STAGES if name in stages}
        summary.queues = {
            name: (q.capacity, q.depth_sum / max(1, q.puts), q.depth_max)
            for name, q in stream.queues.items()
        }

    def _report(self, sources: Sequence[Source]) -> None:
        summary = self._summary
        self._measure()
        for source in sources:
            summary.skipped += source.unreadable
        summary.notes += map(str, self._changed.records())
        if self._job.copies and any(s.sound == "dropped" for s in summary.sources):
            summary.notes.append("annotated videos have no sound; the option `audio` keeps it")
        if self._job.track and not self._with_id:
            summary.notes.append(f"no object got an id: a track begins with a score of {SURE}")
        if self._job.audio and not any(s.sound == "kept" for s in summary.sources):
            summary.notes.append(f"{sources[0].name} has no sound that could be kept")
        summary.notes += summary.limits.notes(
            "image" if summary.images else "frame", summary.frames
        )
        path = self._job.out / "summary.json"
        summary.outputs.append(path)
        try:
            summary.write(path)
        except (OSError, BadInput) as error:
            summary.outputs.remove(path)
            summary.problems.append(error)

    def _sound(self, source: Source) -> Sound:
        if source.has_sound is None:
            return "unknown"
        if not source.has_sound:
            return "none"
        return "kept" if self._job.audio else "dropped"
