"""Outputs of a job that somebody deletes while it runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retinart import BadInput, Detections
from retinart.engine.job.copies import Copy
from retinart.engine.job.outputs import Outputs
from retinart.engine.job.records import Record
from retinart.engine.keep.counting import Event
from retinart.engine.media.frame import Frame

NOTHING = Detections(
    xyxy=np.zeros((0, 4), np.float32),
    confidence=np.zeros(0, np.float32),
    class_id=np.zeros(0, np.int32),
)
RECORD = Record(source="a", frame=0, time_ms=0.0, width=9, height=9, detections=NOTHING)


@pytest.fixture
def outputs(tmp_path: Path) -> Iterator[Outputs]:
    """Without `detections.jsonl`."""
    (tmp_path / "out").mkdir()
    with Outputs(
        tmp_path / "out", [Copy()], detections_file=False, coco=None, csv=None, classes=["car"],
        ids=None, note=lambda *words: None, tracks=True, live=False,
    ) as one:  # fmt: skip
        one.write(None, RECORD, None)
        yield one


def test_events_that_are_deleted(outputs: Outputs, tmp_path: Path) -> None:
    """Seen: what came after went into a file without a name."""
    frame = Frame(source="a", index=0, time_ms=0.0, image=np.zeros((9, 9, 3), np.uint8))
    event = Event(time=0.0, frame=0, kind="enter", area="yard", track=1, class_id=0)
    outputs.write_events(frame, [event])
    outputs.write(None, RECORD, None)
    (tmp_path / "out" / "events.jsonl").unlink()
    with pytest.raises(BadInput, match=r"out/events\.jsonl: it was deleted or replaced while"):
        outputs.write(None, RECORD, None)
    outputs.close()
    assert outputs.paths == []


def test_a_folder_that_is_deleted(outputs: Outputs, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(BadInput, match="out: it was deleted or replaced while"):
        outputs.write(None, RECORD, None)
