"""The table of tiles: of annotated pictures, of grids of them, and of a video."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from retinart.benchmarks import tiles
from support import write_video


def test_a_table(
    model_path: Path, small_scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "v.mp4", frames=2)
    given = ["--images", small_scenes, "--annotations", small_scenes.parent / "instances.json"]
    more = ["--grid", "4", "--filled", "5", "--shrink", "2", "--tiles", "2x2", "--videos", video]
    assert tiles.main([str(word) for word in [model_path, *given, *more]]) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 pictures of 256x192\n")  # twelve scenes, five in each
    rows = re.findall(r"^\| +(none|2x2) +\| +(\d+) \|", text, re.MULTILINE)
    assert rows == [("none", "1"), ("2x2", "5")] * 2
    assert "v.mp4: 2 frames of 128x96" in text


def test_nothing_to_measure(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiles.main([str(model_path)]) == 2
    assert "there is nothing to measure. Give --images and --annotations" in capsys.readouterr().err
