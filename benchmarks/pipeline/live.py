"""A job on a live source that is too fast for it, and a very long job: what grows?"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retinart.benchmarks.pipeline.mjpeg_server import MJPEGServer
from retinart.benchmarks.timing.alternate import milliseconds
from retinart.engine.common.table import Table
from retinart.engine.common.timing import StageClock
from retinart.engine.detector import Detector
from retinart.engine.job.job import run_job
from retinart.engine.job.settings import DetectJob
from retinart.engine.job.summary import DetectSummary
from retinart.engine.media.images import Image
from retinart.engine.media.settings import StreamSettings
from retinart.engine.media.video import VideoReader
from retinart.engine.media.video_writer import VideoWriter

_PICTURES = 64
_WARM_UP = 0.2  # share of a run after which memory should not grow
_PAGE = 4096
Samples = list[tuple[float, int, int, int]]  # seconds, resident bytes, threads, open files


@contextmanager
def footprint() -> Iterator[Samples]:
    """Sample this process's memory, threads and open files every tenth of a second."""
    samples, done, start = Samples(), threading.Event(), time.perf_counter()

    def run() -> None:
        last = False
        while not last:  # once at least, and once at the end
            last = done.wait(0.1)
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
            threads, files = (len(list(Path(f"/proc/self/{n}").iterdir())) for n in ("task", "fd"))
            samples.append((time.perf_counter() - start, resident, threads, files))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def growth(samples: Samples) -> dict[str, Any]:
    """Growth and the range of counts, after the warm-up and before the files are ended."""
    end = samples[-1][0]
    kept = [row for row in samples if _WARM_UP <= row[0] / end <= 0.99] or samples
    resident = np.array([row[1] for row in kept]) / 2**20
    tenth = max(1, len(resident) // 10)
    first, last = float(np.median(resident[:tenth])), float(np.median(resident[-tenth:]))
    return {
        "rss_mib_first_tenth": round(first, 1),
        "rss_mib_last_tenth": round(last, 1),
        "rss_mib_range": [round(float(f(resident)), 1) for f in (np.min, np.max)],
        "growth": round(last / first - 1, 4),
        "spread": round(float(np.max(resident) / np.min(resident) - 1), 4),
        "threads": sorted({row[2] for row in kept}),
        "open_files": sorted({row[3] for row in kept}),
    }


def run_live(detector: Detector, video: Path, *, seconds: float) -> dict[str, Any]:
    """A job on a camera that sends twice as many frames as inference alone can take."""
    images = first_frames(video, _PICTURES)
    jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in images]
    batches = [detector.runner.prepare([image]) for image in images]
    turns = itertools.cycle(batches)
    times = [milliseconds(lambda: next(turns).submit(StageClock()).result()) for _ in range(100)]
    infer_ms = statistics.median(times[20:])
    step = infer_ms / 2000

    def frames(connection: int) -> Iterator[bytes]:
        start = time.perf_counter()
        for number in range(round(seconds / step)):
            while (left := start + number * step - time.perf_counter()) > 0:
                time.sleep(left)
            yield jpegs[number % len(jpegs)]

    with MJPEGServer(frames) as camera, tempfile.TemporaryDirectory() as folder:
        job = DetectJob(source=camera.url, out=Path(folder), stream=StreamSettings(max_retries=0))
        with footprint() as samples:
            summary = run_job(detector, job)
        sent = camera.sent
    counts, infer = summary.sources[0].counts, summary.stages["infer"]
    figures: dict[str, Any] = {
        "infer_alone_ms": round(infer_ms, 3),
        "infer_live_ms": infer.to_json(),
    }
    for what, age in (("detections", summary.to_detections), ("result", summary.to_result)):
        p99 = age.percentile(99)
        figures[f"age_of_{what}_ms"] = age.to_json()
        figures[f"age_p99_of_{what}_in_inference_times"] = {
            "alone, median": round(p99 / infer_ms, 3),
            "live, p50": round(p99 / infer.percentile(50), 3),
            "live, p99": round(p99 / infer.percentile(99), 3),
        }
    figures |= {
        "sent": sent,
        "read": counts.read,
        "detected": summary.frames,
        "dropped": counts.dropped,
        "broken": counts.broken,
        "counted_exactly": sent == counts.read == summary.frames + counts.dropped + counts.broken,
        "footprint": growth(samples),
    }
    _print(f"{seconds:g} s at twice the rate of inference alone", figures, summary)
    return figures


def run_long(detector: Detector, video: Path, *, frames: int) -> dict[str, Any]:
    """A job over a video file of so many frames, made by repeating the beginning of another."""
    images = first_frames(video, _PICTURES)
    with tempfile.TemporaryDirectory() as folder:
        long = Path(folder) / "long.mp4"
        with VideoWriter(long, fps=25, size=(images[0].shape[0], images[0].shape[1])) as writer:
            for i in range(frames):
                writer.write(images[i % len(images)])
        with footprint() as samples:
            summary = run_job(detector, DetectJob(source=str(long), out=Path(folder) / "out"))
    figures = {
        "frames": summary.frames,
        "detections": summary.detections,
        "fps": round(summary.fps, 2),
        "footprint": growth(samples),
    }
    _print(f"{frames} frames of a file", figures, summary)
    return figures


def first_frames(video: Path, count: int) -> list[Image]:
    """The first frames of a video, each (H, W, 3) uint8 BGR."""
    with VideoReader(video) as reader:
        return [frame.image for frame, _ in zip(reader, range(count), strict=False)]


def _print(title: str, figures: dict[str, Any], summary: DetectSummary) -> None:
    rows = [(name.replace("_", " "), value) for name, value in figures.items()]
    print(f"{title}\n\n{Table(head=('figure', 'value'), rows=rows).markdown()}\n")
    print(f"```\n{summary.table()}\n```")
