"""A job on a live source that is too fast for it, and a very long one: what grows?"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from retinart.benchmarks.pipeline.mjpeg_server import MJPEGServer, numbered_jpeg
from retinart.engine.common.timing import StageClock
from retinart.engine.detector import Detector
from retinart.engine.job.job import run_job
from retinart.engine.media.video import VideoReader
from retinart.engine.media.video_writer import VideoWriter
from retinart.engine.runtime.runner import Prepared
from retinart.engine.settings import DetectJob, StreamSettings

_PICTURES = 64
_WARM_UP = 0.2  # share of a run after which memory should not grow


class Footprint:
    """Samples this process's memory, threads and open files every tenth of a second.

    Attributes:
        rows: (seconds, resident bytes, threads, open files).
    """

    def __init__(self) -> None:
        self.rows: list[tuple[float, int, int, int]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Footprint:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def figures(self) -> dict[str, Any]:
        """After the warm-up and before the files are ended: growth, and the range of counts."""
        seconds = np.array([row[0] for row in self.rows])
        kept = [r for r in self.rows if _WARM_UP <= r[0] / seconds[-1] <= 0.99] or self.rows
        resident = np.array([row[1] for row in kept]) / 2**20
        tenth = max(1, len(resident) // 10)
        first, last = np.median(resident[:tenth]), np.median(resident[-tenth:])
        return {
            "rss_mib_first_tenth": round(float(first), 1),
            "rss_mib_last_tenth": round(float(last), 1),
            "rss_mib_range": [round(float(f(resident)), 1) for f in (np.min, np.max)],
            "growth": round(float(last / first - 1), 4),
            "spread": round(float(np.max(resident) / np.min(resident) - 1), 4),
            "threads": sorted({row[2] for row in kept}),
            "open_files": sorted({row[3] for row in kept}),
        }

    def _run(self) -> None:
        page, start = 4096, time.perf_counter()
        last = False
        while not last:  # once at least, and once at the end
            last = self._done.wait(0.1)
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            threads = len(list(Path("/proc/self/task").iterdir()))
            files = len(list(Path("/proc/self/fd").iterdir()))
            self.rows.append((time.perf_counter() - start, resident, threads, files))


def run_live(detector: Detector, video: Path, *, seconds: float) -> dict[str, Any]:
    """A job on a camera that sends twice as many frames as inference alone can take."""
    jpegs, infer_ms = _prepare(detector, video)
    step = infer_ms / 2000

    def frames(connection: int) -> Iterator[bytes]:
        start = time.perf_counter()
        for number in range(round(seconds / step)):
            while (left := start + number * step - time.perf_counter()) > 0:
                time.sleep(left)
            yield jpegs[number % len(jpegs)]

    with (
        MJPEGServer(frames) as camera,
        tempfile.TemporaryDirectory() as folder,
        Footprint() as foot,
    ):
        settings = StreamSettings(max_retries=0)
        summary = run_job(detector, DetectJob(source=camera.url, out=Path(folder), stream=settings))
        sent = camera.sent
    counts, infer = summary.sources[0].counts, summary.stages["infer"]
    ages = {"detections": summary.detected, "result": summary.written}
    figures = {
        "infer_alone_ms": round(infer_ms, 3),
        "infer_live_ms": infer.to_json(),
        **{f"age_of_{what}_ms": age.to_json() for what, age in ages.items()},
        **{
            f"age_p99_of_{what}_in_inference_times": {
                "alone, median": round(age.percentile(99) / infer_ms, 3),
                "live, p50": round(age.percentile(99) / infer.percentile(50), 3),
                "live, p99": round(age.percentile(99) / infer.percentile(99), 3),
            }
            for what, age in ages.items()
        },
        "sent": sent,
        "read": counts.read,
        "detected": summary.frames,
        "dropped": counts.dropped,
        "broken": counts.broken,
        "counted_exactly": sent == counts.read == summary.frames + counts.dropped + counts.broken,
        "footprint": foot.figures(),
    }
    _print(f"{seconds:g} s at twice the rate of inference alone", figures)
    print(f"\n```\n{summary.table()}\n```")
    return figures


def run_long(detector: Detector, video: Path, *, frames: int) -> dict[str, Any]:
    """A job over a video file of so many frames, made by repeating the beginning of another."""
    with VideoReader(video) as reader:
        images = [frame.image for frame, _ in zip(reader, range(_PICTURES), strict=False)]
    with tempfile.TemporaryDirectory() as folder:
        long = Path(folder) / "long.mp4"
        with VideoWriter(long, fps=25, size=(images[0].shape[0], images[0].shape[1])) as writer:
            for i in range(frames):
                writer.write(images[i % len(images)])
        with Footprint() as foot:
            summary = run_job(detector, DetectJob(source=str(long), out=Path(folder) / "out"))
    figures = {
        "frames": summary.frames,
        "detections": summary.detections,
        "fps": round(summary.fps, 2),
        "footprint": foot.figures(),
    }
    _print(f"{frames} frames of a file", figures)
    print(f"\n```\n{summary.table()}\n```")
    return figures


def _prepare(detector: Detector, video: Path) -> tuple[list[bytes], float]:
    """JPEGs of a video's first frames, and the median time of inference alone in ms."""
    with VideoReader(video) as reader:
        images = [frame.image for frame, _ in zip(reader, range(_PICTURES), strict=False)]
    jpegs = [numbered_jpeg(i, image) for i, image in enumerate(images)]
    batches = [detector.runner.prepare([image]) for image in images]
    times = [_seconds(batches[i % len(batches)]) for i in range(100)][20:]
    return jpegs, 1000 * statistics.median(times)


def _seconds(prepared: Prepared) -> float:
    start = time.perf_counter()
    prepared.submit(StageClock()).result()
    return time.perf_counter() - start


def _print(title: str, figures: dict[str, Any]) -> None:
    print(f"{title}\n\n| figure | value |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name.replace('_', ' ')} | {value} |")
