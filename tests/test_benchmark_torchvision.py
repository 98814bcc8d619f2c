"""The comparison with torchvision: its arithmetic, without torchvision."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retinart.benchmarks import train_step
from retinart.benchmarks.peers.torchvision_shim import block_nms
from retinart.benchmarks.timing import statistics
from retinart.benchmarks.torchvision_compare import choose_images, compare_detections
from retinart.benchmarks.torchvision_eager import main
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.runtime.nms import greedy_nms


def test_turns_alternate() -> None:
    turns = list(statistics.turns(4, 3))
    assert [t[:2] for t in turns] == [(r, i) for r in range(4) for i in range(3)]
    for image in range(3):
        assert sum(first for _, i, first in turns if i == image) == 2
    assert [first for _, _, first in statistics.turns(1, 4)] == [True, False, True, False]


def test_ratio_withstands_drift() -> None:
    """A machine that grows slower by the pair leaves the ratio of pairs alone."""
    drift = np.linspace(1, 3, 30)
    found = statistics.median_of_ratios(20 * drift, 10 * drift)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    wide = statistics.ratio_of_medians(20 * drift, 10 * drift)
    assert wide.value == pytest.approx(2)
    assert statistics.median_of_differences([5, 7, 9], [1, 3, 5]).value == 4


def test_interval_holds_the_median() -> None:
    values = np.random.default_rng(0).normal(100, 10, 200)
    found = statistics.median(values)
    assert found.low < found.value < found.high
    assert found.high - found.low < 6
    assert statistics.median(values) == found  # the same every time


def test_spread() -> None:
    assert statistics.spread([10.0] * 5) == 0
    assert statistics.spread([8, 9, 10, 11, 12]) == pytest.approx(0.32)


def test_only_four_by_three(tmp_path: Path) -> None:
    for name, (height, width) in {
        "a": (480, 640), "b": (427, 640), "c": (640, 480), "d": (240, 320), "e": (480, 640),
    }.items():  # fmt: skip
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((height, width, 3), np.uint8))
    paths = sorted(tmp_path.iterdir())
    assert [p.stem for p in choose_images(paths, 2)] == ["a", "d"]
    assert [p.stem for p in choose_images(paths, 9)] == ["a", "d", "e"]
    with pytest.raises(BadInput, match="none of the 2 images is 4:3"):
        choose_images(paths[1:3], 1)


def test_detections_at_the_cut_are_not_held() -> None:
    box = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)

    def some(scores: list[float]) -> Detections:
        n = len(scores)
        return Detections(
            xyxy=box[:n],
            confidence=np.array(scores, np.float32),
            class_id=np.zeros(n, np.int32),
        )

    assert compare_detections(some([0.9, 0.051]), some([0.9]), 0.05, 100).same
    assert not compare_detections(some([0.9, 0.4]), some([0.9]), 0.05, 100).same
    assert compare_detections(some([0.9, 0.4]), some([0.9]), 0.05, 2).same  # ours was full at 0.4
    box[1, 2:] = box[1, :2]
    assert compare_detections(some([0.9]), some([0.9, 0.8]), 0.05, 100).same  # one has no area


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 700])
def test_stand_in_is_greedy_nms(count: int) -> None:
    rng = np.random.default_rng(count)
    low = rng.uniform(0, 150, (count, 2))
    boxes = np.hstack([low, low + rng.uniform(0, 60, (count, 2))]).astype(np.float32)
    scores = rng.random(count).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    keep = greedy_nms(boxes[order], np.zeros(count, np.intp), 0.5, max(count, 1))
    np.testing.assert_array_equal(block_nms(boxes, scores, 0.5), order[keep])


def test_absent_peer_names_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["model.pth", "--images", str(tmp_path), "--peers", str(tmp_path / "peers")]
    assert main(arguments) == 3
    error = capsys.readouterr().err
    assert "pip install --no-deps --target" in error and "torchvision==0.28.0" in error


def test_a_training_step_needs_the_peer_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--images", "x", "--annotations", "x", "--peers", str(tmp_path / "peers")]
    assert train_step.main(arguments) == 3
    assert "pip install --no-deps --target" in capsys.readouterr().err
