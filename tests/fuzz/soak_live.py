"""Two jobs on one looped camera for some minutes: one has a sink that is down, and is scraped.

    cd tests && python -m fuzz.soak_live --minutes 10

Both run at the same time, so that other work on the machine hits both. The metrics are scraped each
second. Do memory, threads and open files grow, and are the frames as fresh as without the sink?
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from retinart.engine.common.table import Table
from support import write_video

RETINART = [sys.executable, "-m", "retinart"]
CAMERA = Path("../containers/looped_camera.py")
NAMES = ("alone", "sink down, scraped")


def main() -> int:
    """Run both jobs; print the tables, and 1 if something grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="(default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="retinart-soak-") as folder:
        work = Path(folder)
        size = ["--height", "96", "--width", "128", "--skip-tensorrt"]
        export = ["export", "../train/assets/tiny.pt", "-o", str(work / "a.onnx"), *size]
        subprocess.run([*RETINART, *export], check=True, capture_output=True)
        video = write_video(work / "v.mp4", frames=200)
        down, metrics = free_port(), free_port()
        words = [sys.executable, str(CAMERA), str(video), "127.0.0.1", "0"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as camera:
            assert camera.stderr is not None
            url = camera.stderr.readline().strip()
            try:
                more = ["--sink", f"http://127.0.0.1:{down}/", "--metrics", f"127.0.0.1:{metrics}"]
                jobs = [
                    start(work, url, name, args.minutes, more[:i])
                    for i, name in zip((0, 4), NAMES, strict=True)
                ]
                rows = watch(jobs, f"http://127.0.0.1:{metrics}/metrics")
            finally:
                camera.kill()
        summaries = [json.loads((work / name / "summary.json").read_text()) for name in NAMES]
    head = [
        "minute",
        *(f"{name}: {what}" for name in NAMES for what in ("MiB", "threads", "files")),
    ]
    print(
        Table(head=head, rows=rows).markdown(),
        Table(
            head=["job", "frames", "dropped", "age p50 ms", "p95 ms", "p99 ms"],
            rows=[figures(*pair) for pair in zip(NAMES, summaries, strict=True)],
        ).markdown(),
        sep="\n\n",
    )
    (sink,) = summaries[1]["sinks"]
    print(f"\nsink: {sink['sent']} sent, {sink['dropped']} dropped, {sink['failures']} failures")
    early = rows[min(2, len(rows) - 1)]  # by then 1,000 lines wait
    late = [min(column) for column in zip(*rows[-3:], strict=True)]  # a scrape opens a connection
    memory, others = (1, 4), (2, 3, 5, 6)
    grew = any(late[i] > 1.05 * early[i] for i in memory) or any(late[i] > early[i] for i in others)
    print("something grew" if grew else "flat")
    return int(grew)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def start(
    work: Path, url: str, name: str, minutes: float, more: list[str]
) -> subprocess.Popen[bytes]:
    """A job that reads the camera for some minutes."""
    words = ["detect", str(work / "a.onnx"), url, "--no-copies", "--out", str(work / name)]
    return subprocess.Popen(
        [*RETINART, *words, "--end", str(60 * minutes), *more], stderr=subprocess.DEVNULL
    )


def watch(jobs: list[subprocess.Popen[bytes]], metrics: str) -> list[tuple[int, ...]]:
    """Scrape each second, and note each minute how large the jobs are."""
    rows: list[tuple[int, ...]] = []
    begun, scrapes = time.monotonic(), 0
    while all(job.poll() is None for job in jobs):
        time.sleep(1)
        try:
            urllib.request.urlopen(metrics, timeout=30).read()
            scrapes += 1
        except OSError:  # it begins or ends
            continue
        if time.monotonic() - begun >= 60 * (len(rows) + 0.5):
            rows.append((len(rows), *(value for job in jobs for value in size_of(job.pid))))
            print(rows[-1], scrapes, file=sys.stderr, flush=True)
    for job in jobs:
        job.wait()
    return rows


def size_of(process: int) -> tuple[int, int, int]:
    """MiB, threads and open files."""
    folder = Path(f"/proc/{process}")
    fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    memory = int(fields["VmRSS"].split()[0]) // 1024
    return memory, int(fields["Threads"]), len(list((folder / "fd").iterdir()))


def figures(name: str, summary: dict[str, Any]) -> tuple[str | int | float, ...]:
    """A row of the second table."""
    ages = summary["capture_to_result_ms"]
    frames = summary["frames"]
    return name, frames["written"], frames["dropped"], ages["p50"], ages["p95"], ages["p99"]


if __name__ == "__main__":
    sys.exit(main())
