"""The callable for Ray Data, without Ray; test_cluster.py has it in a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinart.engine.cluster.batches import DetectBatch
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.media.images import read_image

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture(scope="module")
def detect(model_path: Path) -> DetectBatch:
    return DetectBatch(model_path, threads=1)


def columns(paths: list[Path]) -> dict[str, Any]:
    return {"path": np.array([str(path) for path in paths], object)}


def test_a_row_a_picture_with_the_detectors_detections(
    detect: DetectBatch, model_path: Path, images: Path
) -> None:
    paths = sorted(images.iterdir())
    rows = detect(columns(paths)).to_pylist()
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    with Detector(model_path, threads=1, throughput=True) as detector:
        for row, path in zip(rows, paths, strict=True):
            image = read_image(path)
            found = detector(image)
            assert len(found) > 0
            assert (row["height"], row["width"]) == image.shape[:2]
            assert row["boxes"] == found.xyxy.tolist()
            assert row["scores"] == found.confidence.tolist()
            assert row["labels"] == [detector.classes[i] for i in found.class_id]
            assert row["error"] is None


def test_the_content_of_a_file_is_read_as_the_file(detect: DetectBatch, images: Path) -> None:
    paths = sorted(images.iterdir())
    content = np.array([path.read_bytes() for path in paths], object)
    by_path, table = detect(columns(paths)), pyarrow.table({"bytes": list(content)})
    assert detect({**columns(paths), "bytes": content}).equals(by_path)
    nameless = detect(table)
    assert nameless.drop(["path"]).equals(by_path.drop(["path"]))
    assert nameless["path"].to_pylist() == [None] * len(paths)


def test_a_picture_that_cannot_be_read_is_a_row_with_an_error(
    detect: DetectBatch, images: Path
) -> None:
    broken = images / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing")
    good, bad, missing = detect(
        columns([images / "0.png", broken, images / "none.png"])
    ).to_pylist()
    assert good["error"] is None and good["boxes"]
    assert "truncated" in bad["error"] and "No such file" in missing["error"]
    assert (bad["width"], bad["boxes"], bad["labels"]) == (0, [], [])


def test_no_rows_are_an_empty_table_of_the_same_types(detect: DetectBatch, images: Path) -> None:
    nothing = detect(columns([]))
    assert nothing.num_rows == 0
    assert nothing.schema == detect(columns([images / "0.png"])).schema


def test_rows_without_pictures(detect: DetectBatch) -> None:
    with pytest.raises(BadInput, match=r"hold no pictures: their columns are name\. Give"):
        detect({"name": np.array(["a"], object)})
