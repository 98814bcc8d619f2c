"""The files of a run."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import matplotlib.axes
import pytest

from retinart.train.run_folder import COLUMNS, Row, RunFolder


def test_ap_is_in_points_as_on_the_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: 0.0036 in the file and the plot, and 0.4 on the console."""
    rows: list[Row] = [
        {**dict.fromkeys(COLUMNS, 1.0), "AP": None, "AP50": None},
        {**dict.fromkeys(COLUMNS, 2.0), "AP": 0.5814, "AP50": 0.9006},
    ]
    folder, drawn = RunFolder(tmp_path / "run"), dict[str, Any]()
    real = matplotlib.axes.Axes.plot

    def plot(axes: Any, x: Any, y: Any, **more: Any) -> Any:
        drawn[more["label"]] = list(y)
        return real(axes, x, y, **more)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", plot)
    folder.record(rows)
    assert folder.draw_curves(rows) is None
    with (folder.path / "results.csv").open() as file:
        written = [(row["AP"], row["AP50"]) for row in csv.DictReader(file)]
    assert written == [("", ""), ("58.14", "90.06")]
    assert drawn["AP"] == pytest.approx([58.14]) and drawn["AP50"] == pytest.approx([90.06])
    assert rows[1]["AP"] == 0.5814


def test_a_later_events_file_is_read_later(tmp_path: Path) -> None:
    """Seen: two files of one second, and the later process had the smaller number."""
    folder = RunFolder(tmp_path / "run")
    before = folder.path / f"events.out.tfevents.{int(time.time())}.~.1.0"
    before.touch()
    assert folder.open_board(1) is None
    folder.close()
    assert sorted(folder.path.iterdir())[0] == before
    assert len(list(folder.path.iterdir())) == 2
