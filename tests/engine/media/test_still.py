"""Still frames take over a result: which frames are still, and what a job makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pytest

from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image
from retinart.engine.media.still import StillScenes, grey_cells
from support import make_picture, read_lines

Command = Callable[..., CompletedProcess[str]]


def _frame(image: Image, time_ms: float | None, source: int = 0) -> Frame:
    return Frame(source="x", source_index=source, index=0, time_ms=time_ms, image=image)


def _grey(level: int, height: int = 360, width: int = 640) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def test_a_threshold_in_grey_levels() -> None:
    still = StillScenes(4, 10)
    levels = (100, 104, 96, 105, 109, 110)  # each against the last one that was not still
    found = [still(_frame(_grey(level), 40.0 * i)) for i, level in enumerate(levels)]
    assert found == [False, True, True, False, True, False]


def test_a_slow_change_adds_up() -> None:
    still = StillScenes(4, 100)
    found = [still(_frame(_grey(100 + i), 40.0 * i)) for i in range(15)]
    assert [i for i, one in enumerate(found) if not one] == [0, 5, 10]


def test_a_small_object_is_seen_and_noise_is_not() -> None:
    """Its cell of 10x10 pixels changes, though the mean of the picture does not."""
    still, rng = StillScenes(8, 10), np.random.default_rng(0)
    for i in range(5):
        noise = rng.normal(128, 6, (360, 640, 3)).round().astype(np.uint8)
        assert still(_frame(noise, 40.0 * i)) == (i > 0)
    noise[200:210, 300:310] = 255
    assert not still(_frame(noise, 300.0))


def test_a_longest_time() -> None:
    still = StillScenes(4, 0.5)
    found = [still(_frame(_grey(100), 100.0 * i)) for i in range(14)]
    assert [i for i, one in enumerate(found) if not one] == [0, 6, 12]


def test_what_is_never_still() -> None:
    still = StillScenes(255, 10)
    assert not still(_frame(_grey(1), 0.0)) and still(_frame(_grey(2), 1.0))
    assert not still(_frame(_grey(2, 180, 320), 2.0))  # another size
    assert not still(_frame(_grey(2), 2.0, source=1))  # another source
    assert not any(still(_frame(_grey(1), None)) for _ in range(3))  # images
    assert grey_cells(_grey(7, 1, 3000)).tolist() == [[7] * 64]


def _write(path: Path) -> None:
    """12 frames of three pictures, four of each, at 10 a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 96))
    for i in range(12):
        writer.write(make_picture(i // 4))
    writer.release()


@pytest.mark.parametrize(
    ("more", "detected"),
    [
        ((), []),
        (("--skip-still", "3"), [0, 4, 8]),
        (("--skip-still", "3", "--max-skip", "0.05"), list(range(12))),
        (("--skip-still", "3", "--max-skip", "0.15"), [0, 2, 4, 6, 8, 10]),
    ],
)
def test_a_job_with_still_frames(
    retinart: Command, model_path: Path, tmp_path: Path, more: tuple[str, ...], detected: list[int]
) -> None:
    _write(tmp_path / "clip.avi")
    out = tmp_path / "out"
    ran = retinart("detect", model_path, tmp_path / "clip.avi", "--out", out, *more)
    assert ran.returncode == 0, ran.stderr
    lines = read_lines(out / "detections.jsonl")
    assert [line["frame"] for line in lines] == list(range(12))
    still = [line["frame"] for line in lines if line.get("still")]
    summary = json.loads((out / "summary.json").read_text())
    counts = summary["frames"]
    assert (counts["detected"], counts["still"], counts["written"]) == (12, len(still), 12)
    if not more:
        assert not still and "still" not in ran.stderr
        return
    assert still == [i for i in range(12) if i not in detected]
    assert f"12 frames ({len(still)} still), " in ran.stderr
    assert summary["stages_ms"]["infer"]["count"] == len(detected)
    for index in still:  # the result of the frame before
        assert lines[index]["detections"] == lines[index - 1]["detections"]


def test_settings_that_make_no_sense(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    for more, message in (
        (["--skip-still", "-1"], "--skip-still is -1.0. Give grey levels, 0 to 255."),
        (["--max-skip", "0"], "--max-skip is 0.0. Give seconds above 0."),
    ):
        ran = retinart("detect", model_path, images, "--out", tmp_path / "out", *more)
        assert ran.returncode == 2 and message in ran.stderr
