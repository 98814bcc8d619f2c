"""What several test files do: make pictures and videos, and look at what is left on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retinart.engine.images import Image
from retinart.engine.video import VideoReader


def make_picture(seed: int, height: int = 96, width: int = 128) -> Image:
    """(height, width, 3) uint8 BGR: a grid of 6x8 random colours."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def write_images(folder: Path, *names: str) -> Path:
    """Write a picture for each name below a folder, and return the folder."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), make_picture(seed))
    return folder


def write_video(path: Path, frames: int = 12, size: tuple[int, int] = (96, 128)) -> Path:
    """Write a video of 10 frames a second, and return its path."""
    fourcc = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), 10, size[::-1])
    assert writer.isOpened()
    for seed in range(frames):
        writer.write(make_picture(seed, *size))
    writer.release()
    return path


def count_frames(path: Path) -> int:
    """Frames of a video that can be decoded."""
    with VideoReader(path) as video:
        return sum(1 for _ in video)


def files_below(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too: no temporary file may be among them."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file, whose last line must be whole."""
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]
