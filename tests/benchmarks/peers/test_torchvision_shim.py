"""The stand-in for torchvision's NMS, without torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from retinart.benchmarks.peers.torchvision_shim import check_installed, nms
from retinart.benchmarks.timing.settings import BenchmarkSettings
from retinart.engine.errors import MissingDependency
from retinart.engine.evaluation.matching import box_iou


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 700])
def test_stand_in_is_greedy_nms(count: int) -> None:
    rng = np.random.default_rng(count)
    low = rng.uniform(0, 150, (count, 2))
    boxes = np.hstack([low, low + rng.uniform(0, 60, (count, 2))]).astype(np.float32)
    scores = rng.random(count).astype(np.float32)
    np.testing.assert_array_equal(nms(boxes, scores, 0.5), _loop(boxes, scores))


def _loop(boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    keep: list[int] = []
    for i in np.argsort(-scores):
        if not (box_iou(boxes[keep], boxes[i : i + 1]) > 0.5).any():
            keep.append(int(i))
    return np.array(keep, np.int64)


def test_a_folder_of_the_working_directory_is_imported_only_if_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`benchmark --peers` imported ./build/peers, whoever had put it there."""
    for package in ("torchvision", "PIL"):
        (tmp_path / "build/peers" / package).mkdir(parents=True)
        (tmp_path / "build/peers" / package / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingDependency, match="no folder that holds it is named"):
        check_installed(BenchmarkSettings(peers=("torchvision",)).torchvision)
    assert check_installed(tmp_path / "build/peers") == tmp_path / "build/peers"
