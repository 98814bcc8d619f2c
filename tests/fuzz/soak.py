"""Run a detection job over many frames, and watch its memory, threads and open files.

    make soak FRAMES=1000000

The frames are small and the model is `tiny`, so that a million of them take less than an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from retinart.engine.common.table import Table
from retinart.engine.media.video_writer import VideoWriter
from retinart.train.data.scenes import make_scenes

SIDE = 64
RETINART = [sys.executable, "-m", "retinart"]


def main() -> int:
    """Run the job; print a line for each tenth of the frames, and 1 if something grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the table here, as Markdown")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="retinart-soak-") as folder:
        work = Path(folder)
        write_video(work / "long.mp4", args.frames)
        size = ["--height", str(SIDE), "--width", str(SIDE)]
        export = ["export", "../train/assets/tiny.pt", "-o", str(work / "a.onnx"), *size]
        subprocess.run([*RETINART, *export, "--skip-tensorrt"], check=True, capture_output=True)
        rows = watch(work, args.frames)
    table = Table(head=["frames", "seconds", "MiB", "threads", "open files"], rows=rows)
    print(table.text())
    if args.out is not None:
        args.out.write_text(table.markdown() + "\n", encoding="utf-8")
    early, late = rows[1], rows[-1]
    grew = late[2] > 1.05 * early[2] or late[3] > early[3] or late[4] > early[4]
    print("something grew" if grew else "flat")
    return int(grew)


def write_video(path: Path, frames: int) -> None:
    """A video of scenes that take turns."""
    from retinart.engine.media.images import list_images, read_image

    with tempfile.TemporaryDirectory() as folder:
        make_scenes(Path(folder) / "scenes", num=16, seed=0)
        files = list_images(str(Path(folder) / "scenes" / "images"))
        pictures = [np.ascontiguousarray(read_image(file)[:SIDE, :SIDE]) for file in files]
    with VideoWriter(path, fps=1000, size=(SIDE, SIDE)) as video:
        for number in range(frames):
            video.write(pictures[number // 100 % len(pictures)])


def watch(work: Path, frames: int) -> list[tuple[int, int, int, int, int]]:
    """Run the job, and note how large it is after each tenth of the frames."""
    lines = work / "out" / "detections.jsonl"
    words = ["detect", str(work / "a.onnx"), str(work / "long.mp4"), "--out", str(work / "out")]
    start = time.perf_counter()
    with subprocess.Popen(
        [*RETINART, *words, "--no-copies", "--conf", "0.5"], stderr=subprocess.DEVNULL
    ) as job:
        rows: list[tuple[int, int, int, int, int]] = []
        written = seen = 0
        status = Path(f"/proc/{job.pid}/status")
        while job.poll() is None:
            time.sleep(0.5)
            if not lines.exists():
                continue
            with lines.open("rb") as file:
                file.seek(seen)
                while block := file.read(1 << 20):
                    seen += len(block)
                    written += block.count(b"\n")
            if written < len(rows) * frames / 10:
                continue
            try:
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                memory = int(fields["VmRSS"].split()[0]) // 1024
                files = len(list(Path(f"/proc/{job.pid}/fd").iterdir()))
            except (OSError, KeyError):  # it has just ended
                break
            seconds = round(time.perf_counter() - start)
            rows.append((written, seconds, memory, int(fields["Threads"]), files))
            print(rows[-1], file=sys.stderr)
    if job.returncode:
        raise SystemExit(f"the job ended with {job.returncode}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
