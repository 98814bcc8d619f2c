"""Crowded pictures: an exported file passes on as many candidates as it takes to find all objects.

Seen: with 2,000 pairs, 324 detections down to a score of 0.47, and 0.574 of 502 cells.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import box_iou
from retinart.engine.model.info import Thresholds, read_info
from retinart.engine.runtime.nms import detect_from_candidates
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings
from support import ROOT

Floats = npt.NDArray[np.float32]
OBJECTS, AROUND = 480, 9  # candidates of each object


def _grid() -> tuple[Floats, Floats, Floats]:
    """Objects (G, 4) in a grid, candidates (C, 4) about each, and scores (C, 1) by object."""
    rng = np.random.default_rng(0)
    corner = 40 * np.stack(np.divmod(np.arange(OBJECTS), 24), axis=1)
    objects = np.concatenate([corner, corner + 32], axis=1).astype(np.float32)
    moved = objects.repeat(AROUND, axis=0) + rng.uniform(-2, 2, (OBJECTS * AROUND, 4))
    scores = np.linspace(0.95, 0.1, OBJECTS).repeat(AROUND) + rng.uniform(0, 0.001, len(moved))
    return objects, moved.astype(np.float32), scores.astype(np.float32)[:, None]


def _recall(objects: Floats, found: Floats) -> float:
    return float((box_iou(objects, found).max(axis=1) >= 0.5).mean())


def test_a_dense_picture_is_found_whole(model_path: Path) -> None:
    """By the limits that an export writes into a file; only the detections are for the user."""
    objects, boxes, scores = _grid()
    thresholds = replace(read_info(model_path).thresholds, detections_per_img=2000)

    def recall(thresholds: Thresholds) -> float:
        return _recall(objects, detect_from_candidates(boxes, scores, thresholds).xyxy)

    assert recall(thresholds) == 1
    assert recall(replace(thresholds, nms_candidates=2000)) == pytest.approx(
        2000 / 9 / 480, abs=0.01
    )


@pytest.mark.slow
def test_a_mosaic_of_cells(shared: Callable[..., Path], tmp_path: Path) -> None:
    """36 pictures in one of 1440x1920, with 502 cells; the quick test above holds the kind."""
    images = shared("data", "bccd", "images")
    document = json.loads(shared("data", "bccd", "test.json").read_text())
    settings = ExportSettings(height=1440, width=1920, max_det=2000, tensorrt=False)
    export_checkpoint(ROOT / "benchmarks/results/bccd/tiny.pt", tmp_path / "dense.onnx", settings)
    mosaic, cells = np.zeros((1440, 1920, 3), np.uint8), list[list[float]]()
    for k, entry in enumerate(document["images"][:36]):
        y, x = 240 * (k // 6), 320 * (k % 6)
        picture = cv2.imread(str(images / entry["file_name"]))
        assert picture is not None
        small = cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA)
        mosaic[y : y + 240, x : x + 320] = small
        for annotation in document["annotations"]:
            if annotation["image_id"] == entry["id"]:
                left, top, w, h = (v / 2 for v in annotation["bbox"])
                cells.append([x + left, y + top, x + left + w, y + top + h])
    with Detector(tmp_path / "dense.onnx", threads=1) as detect:
        found = detect(mosaic)
    sure = found.xyxy[found.confidence > 0.3]
    assert len(cells) == 502
    assert len(found) == pytest.approx(668, abs=7) and found.confidence[-1] < 0.06
    assert _recall(np.array(cells, np.float32), sure) == pytest.approx(0.657, abs=0.01)
