"""The table of still scenes: of a video in which half of the frames stand still."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest

from retinart.benchmarks import skip_still
from support import make_picture


def test_a_table(model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 96))
    for i in range(4):
        writer.write(make_picture(i // 2))
    writer.release()
    given = [str(model_path), str(video), "--thresholds", "3"]
    assert skip_still.main(given) == 0
    text = capsys.readouterr().out
    assert re.search(r"\| v.avi +\| every frame \| +\| +\d+ \|", text)
    # each ratio has its interval
    ratio = r"[\d.]+ \([\d.]+ to [\d.]+\)"
    assert re.search(rf"\| v.avi +\| +3 \| +50.0% \| +\d+ \| +{ratio} \| +0 of \d+ \|", text)
    assert skip_still.main([*given, "--repeats", "3"]) == 2
    assert "3 rounds are too few" in capsys.readouterr().err
