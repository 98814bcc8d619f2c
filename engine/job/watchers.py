"""Who watches a job while it runs: the page, Prometheus, and the sinks of its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict

from retinart.engine.common.address import Address
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.job.settings import DetectJob
from retinart.engine.media.frame import Frame
from retinart.engine.media.source import Source
from retinart.engine.metrics.figures import JobFigures
from retinart.engine.sinks.sink import Line, Sink, SinkCounts
from retinart.engine.view.board import Board, Figures


class Watchers:
    """Those that a job asks for; a block in which they are told of its frames.

    Args:
        job: what to show, and where.
        detector: of the job.
        sources: of the job.
        for_page, for_metrics: give the job's figures as they are now.
        say: told where to watch, and what happens to sinks.

    Raises:
        BadInput: on entering the block, an address cannot be taken or is not one of a sink.
        MissingDependency: one needs a package that is not installed.
    """

    def __init__(
        self,
        job: DetectJob,
        detector: Detector,
        sources: Sequence[Source],
        for_page: Callable[[], Figures],
        for_metrics: Callable[[], JobFigures],
        say: Callable[[str], None],
    ) -> None:
        self._job, self._detector, self._sources, self._say = job, detector, sources, say
        self._for_page, self._for_metrics = for_page, for_metrics
        self._board: Board | None = None
        self._sinks: list[Sink] = []
        self._stack = ExitStack()

    def show(self, frame: Frame, found: Detections) -> None:
        """Show a frame on the page, without waiting for it."""
        if self._board is not None:
            self._board.put(frame, found)

    def send(self, source: str, line: str) -> None:
        """Send a line of a source to the sinks, without waiting for any."""
        for sink in self._sinks:
            sink.put(Line(line, source))

    @property
    def sinks(self) -> list[SinkCounts]:
        """What became of the results that were sent."""
        return [sink.counts for sink in self._sinks]

    def end(self) -> list[SinkCounts]:
        """Send what waits, for a few seconds at most; then see `sinks`."""
        for sink in self._sinks:
            sink.close()
        return self.sinks

    def __enter__(self) -> Watchers:
        with ExitStack() as stack:
            for url in self._job.sinks:
                from retinart.engine.sinks.open_sink import open_sink

                self._sinks.append(open_sink(url, self._say))
                stack.callback(self._sinks[-1].close, 0)
            if self._job.view is not None:
                from retinart.engine.view.server import ViewServer

                self._board = Board(self._about(), len(self._sources), self._for_page)
                page = ViewServer(self._board, Address.parse(self._job.view))
                stack.enter_context(closing(page))
                self._say(f"watch at {page.link}")
            if self._job.metrics is not None:
                from retinart.engine.metrics.server import MetricsServer

                address = Address.parse(self._job.metrics)
                server = MetricsServer(self._for_metrics, self._info(), address)
                stack.enter_context(closing(server))
                self._say(f"metrics at {server.link}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _about(self) -> dict[str, object]:
        """What the page has to know of the job."""
        return {
            "sources": [source.name for source in self._sources],
            "classes": list(self._detector.classes),
            "areas": None if self._job.areas is None else asdict(self._job.areas),
            "draw_conf": max(self._job.draw_conf, self._detector.thresholds.score_thresh),
        }

    def _info(self) -> dict[str, str]:
        """What does not change, for Prometheus."""
        from importlib.metadata import version

        runner = self._detector.runner
        return {
            "version": version("retinart"),
            "runtime": runner.name,
            "model": runner.info.name,
            "precision": runner.info.precision,
        }
