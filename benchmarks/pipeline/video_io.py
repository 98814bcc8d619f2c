"""What reading and writing a frame of video cost: OpenCV, as until 0.1, and PyAV, in turn.

    python -m retinart.benchmarks.pipeline.video_io VIDEO [VIDEO ...] --frames 200 --turns 7

Reading is decoding to BGR. Writing takes frames that were decoded before: OpenCV encodes MPEG-4
Part 2, and `VideoWriter` H.264. Ratios are those of a turn, in which each arm ran once; every other
turn runs the other way round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import files
from itertools import islice
from pathlib import Path

import cv2

from retinart.benchmarks.timing.statistics import median, median_of_ratios
from retinart.engine.media.images import Image
from retinart.engine.media.video import VideoReader
from retinart.engine.media.video_writer import VideoWriter


def read_by_opencv(video: Path, most: int) -> int:
    """Decode the first frames, as the reader did until 0.1."""
    capture, frames = cv2.VideoCapture(str(video)), 0
    while frames < most and capture.grab() and capture.retrieve()[0]:
        frames += 1
    return frames


def read_by_pyav(video: Path, most: int) -> int:
    """Decode the first frames."""
    with VideoReader(video) as reader:
        return sum(1 for _ in islice(reader, most))


def write_by_opencv(path: Path, images: Sequence[Image]) -> int:
    """Encode frames, as the writer did until 0.1."""
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, height))
    for image in images:
        writer.write(image)
    writer.release()
    return len(images)


def write_by_pyav(path: Path, images: Sequence[Image]) -> int:
    """Encode frames."""
    size = (images[0].shape[0], images[0].shape[1])
    with VideoWriter(path, fps=25, size=size) as writer:
        for image in images:
            writer.write(image)
    return writer.written


def measure(video: Path, *, frames: int, turns: int) -> str:
    """A Markdown table of what each arm costs a frame."""
    with VideoReader(video) as reader:
        images = [frame.image for frame in islice(reader, frames)]
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder) / "old.mp4", Path(folder) / "new.mp4"
        arms: dict[str, Callable[[], int]] = {
            "read, OpenCV": lambda: read_by_opencv(video, frames),
            "read, PyAV": lambda: read_by_pyav(video, frames),
            "write, OpenCV": lambda: write_by_opencv(old, images),
            "write, PyAV": lambda: write_by_pyav(new, images),
        }
        cost = _in_turn(arms, turns)
        sizes = {"write, OpenCV": old.stat().st_size, "write, PyAV": new.stat().st_size}
    height, width = images[0].shape[:2]
    lines = [
        f"{video.name}, {width}x{height}, {len(images)} frames, {turns} turns:",
        "",
        "| median (95%) | ms a frame | CPU ms a frame | CPU to OpenCV's | kB a frame |",
        "|---|---|---|---|---|",
    ]
    for name, (wall, cpu) in cost.items():
        ratio = median_of_ratios(cpu, cost[f"{name.split(',')[0]}, OpenCV"][1])
        size = f"{sizes[name] / 1000 / len(images):.2f}" if name in sizes else ""
        lines.append(f"| {name} | {median(wall)} | {median(cpu)} | {ratio} | {size} |")
    return "\n".join(lines)


def _in_turn(
    arms: dict[str, Callable[[], int]], turns: int
) -> dict[str, tuple[list[float], list[float]]]:
    """By arm the wall and the CPU milliseconds a frame of each turn, after one that warms up."""
    cost: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in arms}
    for turn in range(turns + 1):
        for name in list(arms)[:: 1 if turn % 2 else -1]:
            start, work = time.perf_counter(), time.process_time()
            frames = arms[name]()
            wall, cpu = time.perf_counter() - start, time.process_time() - work
            if turn:
                cost[name][0].append(1000 * wall / frames)
                cost[name][1].append(1000 * cpu / frames)
    return cost


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print Markdown. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args(argv)
    disk = sum(Path(str(f.locate())).stat().st_size for f in files("av") or () if f.size)
    print(f"PyAV takes {disk / 1e6:.0f} MB on disk.")
    for video in args.videos:
        print(f"\n{measure(video, frames=args.frames, turns=args.turns)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
