"""The NMS that is written in the file, against greedy NMS, on crowds of clustered candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from retinart.engine.model.info import OUTPUTS, Thresholds
from retinart.engine.runtime.nms import detect_from_candidates
from retinart.export.graph import GraphBuilder
from retinart.export.nms import STEPS, emit_nms

Floats = npt.NDArray[np.float32]
CANDIDATES, CLASSES = 600, 4


def crowd(seed: int, *, objects: int, jitter: float, size: int = 800) -> tuple[Floats, Floats]:
    """Boxes (C, 4) scattered round a few true ones, and scores (C, K)."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(0, size, (objects, 2))
    side = rng.uniform(20, 250, (objects, 2))
    owner = rng.integers(0, objects, CANDIDATES)
    center = center[owner] + rng.normal(0, jitter, (CANDIDATES, 2)) * side[owner]
    side = side[owner] * np.exp(rng.normal(0, jitter, (CANDIDATES, 2)))
    boxes = np.concatenate([center - side / 2, center + side / 2], axis=1).astype(np.float32)
    scores = rng.uniform(0, 0.3, (CANDIDATES, CLASSES)).astype(np.float32)
    scores[np.arange(CANDIDATES), owner % CLASSES] = rng.uniform(0.2, 1, CANDIDATES)
    return boxes, scores


def nms_model(thresholds: Thresholds, *, plus_one: bool) -> onnxruntime.InferenceSession:
    """A file that holds nothing but the NMS."""
    graph = GraphBuilder()
    emit_nms(
        graph,
        "boxes",
        "scores",
        num_classes=CLASSES,
        num_candidates=CANDIDATES,
        thresholds=thresholds,
        plus_one=plus_one,
    )
    m = thresholds.detections_per_img
    model = graph.model(
        inputs=[
            ("boxes", TensorProto.FLOAT, ["batch", CANDIDATES, 4]),
            ("scores", TensorProto.FLOAT, ["batch", CANDIDATES, CLASSES]),
        ],
        outputs=[
            (OUTPUTS[0], TensorProto.INT32, ["batch", 1]),
            (OUTPUTS[1], TensorProto.FLOAT, ["batch", m, 4]),
            (OUTPUTS[2], TensorProto.FLOAT, ["batch", m]),
            (OUTPUTS[3], TensorProto.INT32, ["batch", m]),
        ],
        name="nms",
        producer_version="0",
    )
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("nms_thresh", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("plus_one", [False, True])
def test_equal_to_greedy_nms(nms_thresh: float, plus_one: bool) -> None:
    thresholds = Thresholds(nms_thresh=nms_thresh, detections_per_img=300, nms_candidates=1500)
    session = nms_model(thresholds, plus_one=plus_one)
    scenes = [
        crowd(seed, objects=objects, jitter=jitter)
        for seed, (objects, jitter) in enumerate([(3, 0.1), (30, 0.15), (80, 0.3)])
    ]
    boxes, scores = (np.stack(parts) for parts in zip(*scenes, strict=True))
    count, xyxy, confidence, labels = session.run(None, {"boxes": boxes, "scores": scores})
    for i in range(len(scenes)):
        want = detect_from_candidates(boxes[i], scores[i], thresholds, plus_one=plus_one)
        n = int(count[i, 0])
        assert n == len(want) > 5
        assert np.array_equal(confidence[i, :n], want.confidence)
        assert np.array_equal(labels[i, :n], want.class_id)
        np.testing.assert_allclose(xyxy[i, :n], want.xyxy, atol=1e-4)
        assert not confidence[i, n:].any() and not xyxy[i, n:].any()


def test_nothing_above_the_threshold() -> None:
    session = nms_model(Thresholds(score_thresh=0.9), plus_one=False)
    boxes, scores = crowd(0, objects=3, jitter=0.1)
    count, _, confidence, _ = session.run(
        None, {"boxes": boxes[None], "scores": scores[None] * np.float32(0.5)}
    )
    assert count[0, 0] == 0 and not confidence.any()


def steps_to_settle(boxes: Floats, nms_thresh: float) -> int:
    """Iterations of keep = (keep . suppress == 0) until nothing changes."""
    low = np.maximum(boxes[:, None, :2], boxes[:, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=2)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    suppress = np.triu(inter > nms_thresh * (area[:, None] + area - inter), 1).astype(np.float32)
    keep, steps = np.ones(len(boxes), np.float32), 0
    while True:
        steps += 1
        after = (keep @ suppress < 0.5).astype(np.float32)
        if np.array_equal(after, keep):
            return steps
        keep = after


def test_the_unrolled_steps_are_enough_for_crowds() -> None:
    """One class, all candidates overlapping: the steps that are needed stay far below STEPS."""
    worst = 0
    for seed in range(4):
        for objects, jitter in ((1, 0.5), (10, 0.3), (60, 0.3)):
            boxes, _ = crowd(seed, objects=objects, jitter=jitter)
            worst = max(worst, *(steps_to_settle(boxes, t) for t in (0.3, 0.5, 0.7)))
    assert 4 < worst <= STEPS / 1.5


def test_fewer_pairs_than_detections(tmp_path: Path) -> None:
    """A model so small that it cannot fill its outputs still has them at full length."""
    graph = GraphBuilder()
    emit_nms(
        graph,
        "boxes",
        "scores",
        num_classes=1,
        num_candidates=3,
        thresholds=Thresholds(),
        plus_one=False,
    )
    model = graph.model(
        inputs=[
            ("boxes", TensorProto.FLOAT, [1, 3, 4]),
            ("scores", TensorProto.FLOAT, [1, 3, 1]),
        ],
        outputs=[(name, kind, None) for name, kind in zip(OUTPUTS, (6, 1, 1, 6), strict=True)],  # type: ignore[misc]
        name="nms",
        producer_version="0",
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    boxes = np.array([[[0, 0, 9, 9], [1, 0, 9, 9], [20, 20, 30, 30]]], np.float32)
    count, xyxy, confidence, _ = session.run(
        None, {"boxes": boxes, "scores": np.array([[[0.9], [0.8], [0.7]]], np.float32)}
    )
    assert count.tolist() == [[2]]
    assert xyxy.shape == (1, 100, 4) and confidence.shape == (1, 100)
    assert xyxy[0, 1].tolist() == [20, 20, 30, 30]


@pytest.mark.parametrize(("length", "exact"), [(STEPS, True), (STEPS * 3, False)])
def test_how_long_a_chain_may_be(length: int, exact: bool) -> None:
    """Boxes in a row, each overlapping the next, in falling score: the known limit of the form."""
    boxes = np.zeros((1, CANDIDATES, 4), np.float32)
    start = 10.0 * np.arange(length)
    boxes[0, :length] = np.stack([start, 0 * start, start + 32, 0 * start + 32], axis=1)
    scores = np.zeros((1, CANDIDATES, CLASSES), np.float32)
    scores[0, :length, 0] = np.linspace(0.9, 0.1, length)
    thresholds = Thresholds(nms_candidates=1500)
    count = nms_model(thresholds, plus_one=False).run(None, {"boxes": boxes, "scores": scores})[0]
    want = detect_from_candidates(boxes[0], scores[0], thresholds)
    assert (int(count[0, 0]) == len(want)) is exact
