"""A spreadsheet does not run what a stranger's name says."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from retinart.engine.common.csv_cells import plain_cell
from retinart.engine.common.table import Table
from retinart.engine.detections import Detections
from retinart.engine.job.records import CSVRows, Record


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_formulas_become_text(text: str) -> None:
    assert plain_cell(text) == f"'{text}"
    [[cell]] = csv.reader(io.StringIO(Table(rows=[(text,)]).csv(), newline=""))
    assert cell == f"'{text}"


@pytest.mark.parametrize("cell", ["car", "-1.5", "+3", "1e-3", -2, None, 0.5, "a=b"])
def test_other_cells_stay(cell: object) -> None:
    assert plain_cell(cell) == cell


def test_a_class_called_like_a_formula_in_a_jobs_csv() -> None:
    file = io.StringIO(newline="")
    found = Detections(
        xyxy=np.array([[0, 0, 9, 9]], np.float32),
        confidence=np.array([0.5], np.float32),
        class_id=np.array([0]),
    )
    record = Record(source="@a.png", frame=0, time_ms=None, width=9, height=9, detections=found)
    CSVRows(file, ["=cmd()"]).write(record)
    _, [source, *_, name] = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert (source, name) == ("'@a.png", "'=cmd()")
