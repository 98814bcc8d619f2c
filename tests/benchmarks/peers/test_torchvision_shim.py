"""The stand-in for torchvision's NMS, without torchvision."""

from __future__ import annotations

import numpy as np
import pytest

from retinart.benchmarks.peers.torchvision_shim import block_nms
from retinart.engine.runtime.nms import greedy_nms


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 700])
def test_stand_in_is_greedy_nms(count: int) -> None:
    rng = np.random.default_rng(count)
    low = rng.uniform(0, 150, (count, 2))
    boxes = np.hstack([low, low + rng.uniform(0, 60, (count, 2))]).astype(np.float32)
    scores = rng.random(count).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    keep = greedy_nms(boxes[order], np.zeros(count, np.intp), 0.5, max(count, 1))
    np.testing.assert_array_equal(block_nms(boxes, scores, 0.5), order[keep])
