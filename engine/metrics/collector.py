"""A job's figures as Prometheus's metrics.

Nothing is counted here. Each scrape reads what the job counts anyway, so metrics do not slow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retinart.engine.common.latency_histogram import Times
from retinart.engine.metrics.figures import JobFigures
from retinart.engine.sinks.sink import SinkCounts

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_FRAMES = {
    "read": "decoded, or received from a live source",
    "skipped": "left out, because the selection says so",
    "dropped": "of a live source, replaced by a newer frame",
    "broken": "damaged or unreadable",
    "detected": "that have a result",
    "still": "that took over the result of the frame before",
    "written": "whose results were written",
}


class JobCollector:
    """Makes metrics of a job's figures.

    Args:
        figures: gives them as they are now.
        info: what does not change: the version, the model, the runtime.
    """

    def __init__(self, figures: Callable[[], JobFigures], info: Mapping[str, str]) -> None:
        self._figures, self._info = figures, info

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            InfoMetricFamily,
        )

        figures = self._figures()
        yield InfoMetricFamily("retinart", "The detector.", value=dict(self._info))
        yield from _of_sources(figures)
        yield from _of_sinks(figures.sinks)
        found = CounterMetricFamily(
            "retinart_detections", "Detections with the score that is drawn.", labels=["class"]
        )
        for name, count in figures.detections.items():
            found.add_metric([name], count)
        yield found
        yield _events(figures)
        yield _histogram("retinart_stage_seconds", "Time in a stage.", "stage", figures.stages)
        yield _histogram(
            "retinart_age_seconds", "Time from a frame's capture.", "until", figures.ages
        )
        depth = GaugeMetricFamily("retinart_queue_depth", "Frames that wait.", labels=["stage"])
        room = GaugeMetricFamily("retinart_queue_capacity", "Places.", labels=["stage"])
        for stage, (waiting, places) in figures.queues.items():
            depth.add_metric([stage], waiting)
            room.add_metric([stage], places)
        yield depth
        yield room
        yield GaugeMetricFamily("retinart_ready", "1 if /readyz says so.", value=figures.ready)
        yield GaugeMetricFamily(
            "retinart_healthy", "1 if /healthz says so.", value=not figures.why_unwell
        )
        yield GaugeMetricFamily(
            "retinart_since_result_seconds",
            "Time since results were last written.",
            value=figures.since_result,
        )


def _of_sources(figures: JobFigures) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    names = _different([name for name, _ in figures.sources])
    counts = [counts for _, counts in figures.sources]
    for state, text in _FRAMES.items():
        frames = CounterMetricFamily(
            f"retinart_frames_{state}", f"Frames {text}.", labels=["source"]
        )
        for source, one in zip(names, counts, strict=True):
            frames.add_metric([source], getattr(one, state))
        yield frames
    again = CounterMetricFamily(
        "retinart_reconnects", "Attempts to connect to a live source again.", labels=["source"]
    )
    up = GaugeMetricFamily("retinart_source_up", "1 until a source ends.", labels=["source"])
    for name, one in zip(names, counts, strict=True):
        again.add_metric([name], one.reconnects)
        up.add_metric([name], not one.ended)
    yield again
    yield up


def _events(figures: JobFigures) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    names = _different([name for name, _ in figures.sources])
    family = CounterMetricFamily(
        "retinart_events",
        "What tracked objects did at lines and in zones.",
        labels=["source", "area", "kind", "direction", "class"],
    )
    for key, count in figures.events.items():
        family.add_metric([names[key.source], *key[1:]], count)
    return family


def _of_sinks(sinks: Sequence[SinkCounts]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for state, text in {"sent": "confirmed", "dropped": "lost"}.items():
        results = CounterMetricFamily(
            f"retinart_sink_results_{state}", f"Results {text}.", labels=["sink"]
        )
        for one in sinks:
            results.add_metric([one.name], getattr(one, state))
        yield results
    waiting = GaugeMetricFamily("retinart_sink_waiting", "Results not sent yet.", labels=["sink"])
    for one in sinks:
        waiting.add_metric([one.name], one.waiting)
    yield waiting


def _histogram(name: str, text: str, label: str, times: Mapping[Any, Times]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, text, labels=[label])
    for key, one in times.items():
        counts = one.counts_below([1000 * limit for limit in BUCKETS])
        buckets = [(str(limit), float(n)) for limit, n in zip(BUCKETS, counts, strict=True)]
        family.add_metric([key], [*buckets, ("+Inf", float(one.count))], one.total_ms / 1000)
    return family


def _different(names: list[str]) -> list[str]:
    """The names; one that is there twice gets its number."""
    return [n if names.count(n) == 1 else f"{n} #{i}" for i, n in enumerate(names)]
