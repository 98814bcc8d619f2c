"""What is kept of a job on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from retinart.engine.cluster.shards import FinishedShards, digest_of
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.picture_result import PictureResult
from support import files_below


def made(seed: int, count: int) -> PictureResult:
    random = np.random.default_rng(seed)
    return PictureResult(
        height=7,
        width=9,
        detections=Detections(
            xyxy=random.random((count, 4), np.float32),
            confidence=random.random(count, np.float32),
            class_id=random.integers(0, 3, count, np.int32),
            limits={"detections": 0.25},
        ),
        changes=(("grey ones", "made colour"),),
    )


def test_a_shard_is_read_as_it_was_written(tmp_path: Path) -> None:
    shards = FinishedShards(tmp_path / "shards", {"model": "a"})
    written = [made(1, 5), made(2, 0)]
    assert 3 not in shards
    shards.write(3, written)
    assert 3 in shards
    for one, other in zip(shards.read([3]), written, strict=True):
        assert one.to_json() == other.to_json()
        for name in ("xyxy", "confidence", "class_id"):
            a, b = getattr(one.detections, name), getattr(other.detections, name)
            assert a.dtype == b.dtype and np.array_equal(a, b)
    assert files_below(tmp_path) == ["shards/00000003.jsonl", "shards/job.json"]
    shards.remove()
    assert files_below(tmp_path) == []


def test_the_same_job_goes_on_and_another_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    FinishedShards(folder, {"model": "a"}).write(0, [made(1, 1)])
    assert 0 in FinishedShards(folder, {"model": "a"}, overwrite=True)
    with pytest.raises(BadInput, match="holds the finished part of another job"):
        FinishedShards(folder, {"model": "b"})
    assert 0 not in FinishedShards(folder, {"model": "b"}, overwrite=True)


def test_another_picture_under_a_name_is_another_job(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    os.utime(path, ns=(1, 1))
    first = digest_of([path])
    assert digest_of([path]) == first
    os.utime(path, ns=(1, 2))
    assert digest_of([path]) != first
    path.unlink()
    assert digest_of([path]) != first
