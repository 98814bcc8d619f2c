"""What Prometheus is told of a job, and what probes are told of its health."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from retinart import BadInput, Detector
from retinart.engine.common.address import Address
from retinart.engine.common.http_server import Handler, HttpServer
from retinart.engine.common.latency_histogram import Times
from retinart.engine.job.job import run_job
from retinart.engine.job.settings import DetectJob
from retinart.engine.media.source import SourceCounts
from retinart.engine.metrics.event_counts import EventKey
from retinart.engine.metrics.figures import STUCK_SECONDS, JobFigures
from retinart.engine.metrics.server import MetricsServer
from retinart.engine.sinks.sink import SinkCounts
from support import ROOT

parser = pytest.importorskip("prometheus_client.parser")
Command = Callable[..., CompletedProcess[str]]
LOOPBACK = Address(host="127.0.0.1", port=0)


def _times(*ms: float) -> Times:
    times = Times()
    for one in ms:
        times.add(one)
    return times


def _figures(*counts: SourceCounts, since_result: float = 0.5) -> JobFigures:
    return JobFigures(
        sources=[("rtsp://camera/1", one) for one in counts],
        detections={"disc": 5, 'quote " and \n line': 2},
        events={EventKey(0, "gate", "cross", "left", "disc"): 3},
        stages={"infer": _times(0.5, 4, 40, 400)},
        ages={"result": _times(20)},
        queues={"infer": (1, 2)},
        sinks=[SinkCounts(name="http://sink/", sent=7, dropped=2, waiting=1)],
        since_result=since_result,
    )


@contextmanager
def _served(figures: Callable[[], JobFigures]) -> Iterator[str]:
    with closing(MetricsServer(figures, {"version": "1"}, LOOPBACK)) as server:
        yield server.link.removesuffix("metrics")


def _get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _samples(text: str) -> dict[tuple[str, ...], float]:
    """The values, by the metric's name and its labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_metrics() -> None:
    counts = SourceCounts(read=9, dropped=4, taken=5, detected=5, written=5, reconnects=1)
    with _served(lambda: _figures(counts)) as url:
        status, text = _get(url + "metrics")
    found, camera = _samples(text), "rtsp://camera/1"
    assert status == 200 and found["retinart_info", "1"] == 1
    for name, value in (("read", 9), ("dropped", 4), ("detected", 5), ("written", 5), ("still", 0)):
        assert found[f"retinart_frames_{name}_total", camera] == value
    assert found["retinart_reconnects_total", camera] == 1
    assert found["retinart_source_up", camera] == 1
    assert found["retinart_detections_total", 'quote " and \n line'] == 2
    for name, value in (("results_sent_total", 7), ("results_dropped_total", 2), ("waiting", 1)):
        assert found[f"retinart_sink_{name}", "http://sink/"] == value
    assert found["retinart_queue_depth", "infer"] == 1
    assert found["retinart_queue_capacity", "infer"] == 2
    assert found["retinart_events_total", "gate", "disc", "left", "cross", camera] == 3
    stage = "retinart_stage_seconds"
    for limit, n in (
        ("0.001", 1),
        ("0.005", 2),
        ("0.025", 2),
        ("0.05", 3),
        ("0.5", 4),
        ("+Inf", 4),
    ):
        assert found[f"{stage}_bucket", limit, "infer"] == n
    assert found[f"{stage}_count", "infer"] == 4
    assert found[f"{stage}_sum", "infer"] == pytest.approx(0.4445)
    assert found["process_resident_memory_bytes",] > 1e6


def test_the_page_names_every_metric() -> None:
    """Seen: a table with `_skipped_` for a name, and without the names of sinks' metrics."""
    page = (ROOT / "docs" / "deployment.md").read_text("utf-8")
    named = re.findall(r"^\| `(retinart_\w+)` \|", page, re.MULTILINE)
    with _served(lambda: _figures(SourceCounts())) as url:
        text = _get(url + "metrics")[1]
    families = [f for f in parser.text_string_to_metric_families(text) if f.name[:4] == "reti"]
    endings = {"counter": "_total", "info": "_info"}
    assert sorted(named) == sorted(f.name + endings.get(f.type, "") for f in families)


def test_counts_below_limits_agree_with_the_durations() -> None:
    ms = np.random.default_rng(0).lognormal(3, 2, 500)
    limits = [0.5, 1.0, 2.5, 50.0, 1e4, 1e8]
    found = _times(*ms).counts_below(limits)
    for limit, n in zip(limits, found, strict=True):
        assert (ms <= limit / 1.02).sum() <= n <= (ms <= limit * 1.02).sum()
    assert found[-1] == 500


def test_probes() -> None:
    lost = SourceCounts(taken=3, written=3, ended="lost", why="timed out")
    now = _figures(SourceCounts())
    with _served(lambda: now) as url:
        assert _get(url + "healthz") == (200, "ok\n")
        assert _get(url + "readyz")[0] == 503
        now = _figures(SourceCounts(taken=4, written=3))
        assert [_get(url + path) for path in ("healthz", "readyz")] == [(200, "ok\n")] * 2
        now = replace(now, since_result=STUCK_SECONDS + 1)
        why = "1 frames wait, and none was finished for 61 s\n"
        assert _get(url + "healthz") == (503, why)
        now = _figures(lost, SourceCounts(taken=3, written=3))
        assert [_get(url + path)[0] for path in ("healthz", "readyz")] == [200, 200]
        assert _samples(_get(url + "metrics")[1])["retinart_source_up", "rtsp://camera/1 #0"] == 0
        now = _figures(lost)
        assert _get(url + "healthz") == (503, "rtsp://camera/1 was lost: timed out\n")
        assert _get(url + "readyz")[0] == 503
        assert _get(url + "other")[0] == 404
        assert _get(url + "metrics", Host="evil.example:80")[0] == 421


def test_an_address_that_is_taken() -> None:
    with closing(HttpServer(LOOPBACK, Handler, "metrics")) as taken:
        address = Address(host="127.0.0.1", port=taken.port)
        with pytest.raises(BadInput, match=r"cannot be taken: address already in use\..*`met"):
            MetricsServer(lambda: _figures(), {}, address)


def test_a_job_is_scraped_while_it_runs(
    model_path: Path, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """At its last frame, so that the figures are those of the summary."""
    seen: dict[str, Any] = {}

    class Scraped(MetricsServer):
        def close(self) -> None:
            seen["metrics"], seen["ready"] = _get(self.link), _get(self.link[:-7] + "readyz")
            super().close()

    job = DetectJob(source=str(video), out=tmp_path, copies=False, metrics="127.0.0.1:0")
    with pytest.MonkeyPatch.context() as patch, Detector(model_path, threads=1) as detector:
        patch.setattr("retinart.engine.metrics.server.MetricsServer", Scraped)
        summary = run_job(detector, job)
    found = _samples(seen["metrics"][1])
    assert seen["ready"] == (200, "ok\n")
    assert found["retinart_frames_written_total", str(video)] == summary.frames > 0
    assert found["retinart_age_seconds_count", "result"] == summary.frames
    assert found["retinart_stage_seconds_count", "infer"] == summary.frames
    assert "metrics at http://127.0.0.1:" in capfd.readouterr().err
    assert not [t for t in threading.enumerate() if t.name == "retinart-metrics"]


def test_a_bad_address(retinart: Command, model_path: Path, images: Path) -> None:
    ran = retinart("detect", model_path, images, "--metrics", "9100")
    assert ran.returncode == 2 and "'9100' is not an address with a port" in ran.stderr
    ran = retinart("detect", model_path, images, "--metrics", "127.0.0.1:80000")  # said it twice
    what = "argument --metrics: '127.0.0.1:80000' is not an address with a port: ports go up to"
    assert ran.returncode == 2 and what in ran.stderr
