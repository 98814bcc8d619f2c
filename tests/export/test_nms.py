"""The NMS that is written in the file against greedy NMS, in ONNX Runtime and in OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from retinart.engine.detections import Detections
from retinart.engine.model.info import MAX_TOPK, OUTPUTS, Thresholds
from retinart.engine.runtime.nms import detect_from_candidates
from retinart.engine.runtime.openvino_api import load_openvino
from retinart.export.graph import GraphBuilder
from retinart.export.nms import BLOCK, emit_nms

Floats = npt.NDArray[np.float32]
Scene = tuple[Floats, Floats]  # boxes (C, 4) and scores (C, K)
Run = Callable[[Floats, Floats], list[npt.NDArray[Any]]]
RUNTIMES = ("onnxruntime", "openvino")
CANDIDATES, CLASSES = 600, 4


def crowd(seed: int, *, objects: int, jitter: float, size: int = 800) -> Scene:
    """Boxes scattered round a few true ones."""
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


def even(count: int, classes: int = 1, wide: int = 100, score: float = 0.5) -> Scene:
    """What a black picture gives: boxes at every position, all with one score."""
    y, x = np.divmod(np.arange(count), wide)
    corner = 8 * np.stack([x, y], axis=1).astype(np.float32)
    boxes = np.concatenate([corner, corner + 32], axis=1)
    return boxes, np.full((count, classes), score, np.float32)


def equal_scores(seed: int) -> Scene:
    """A crowd with nine different scores."""
    boxes, scores = crowd(seed, objects=20, jitter=0.15)
    return boxes, np.round(scores * 8) / np.float32(8)


@cache
def nms_model(
    runtime: str, thresholds: Thresholds, candidates: int, classes: int, plus_one: bool = False
) -> Run:
    """A file that holds nothing but the NMS."""
    graph = GraphBuilder()
    emit_nms(
        graph,
        "boxes",
        "scores",
        num_classes=classes,
        num_candidates=candidates,
        thresholds=thresholds,
        plus_one=plus_one,
    )
    m = thresholds.detections_per_img
    model = graph.model(
        inputs=[
            ("boxes", TensorProto.FLOAT, ["batch", candidates, 4]),
            ("scores", TensorProto.FLOAT, ["batch", candidates, classes]),
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
    data = model.SerializeToString()
    if runtime == "openvino":
        core = load_openvino().Core()
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = core.compile_model(core.read_model(data), "CPU", config)

        def infer(boxes: Floats, scores: Floats) -> list[npt.NDArray[Any]]:
            found = compiled({"boxes": boxes, "scores": scores})
            return [found[name] for name in OUTPUTS]

        return infer
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda boxes, scores: list(
        session.run(list(OUTPUTS), {"boxes": boxes, "scores": scores})
    )


def check(
    runtime: str, thresholds: Thresholds, *scenes: Scene, plus_one: bool = False
) -> list[Detections]:
    """Run scenes as one batch, and see that each gives what greedy NMS gives, to the last bit."""
    boxes, scores = (np.stack(parts) for parts in zip(*scenes, strict=True))
    run = nms_model(runtime, thresholds, boxes.shape[1], scores.shape[2], plus_one)
    count, xyxy, confidence, labels = run(boxes, scores)
    wanted = []
    for i in range(len(scenes)):
        want = detect_from_candidates(boxes[i], scores[i], thresholds, plus_one=plus_one)
        n = int(count[i, 0])
        assert n == len(want)
        assert np.array_equal(confidence[i, :n], want.confidence)
        assert np.array_equal(labels[i, :n], want.class_id)
        assert np.array_equal(xyxy[i, :n], want.xyxy, equal_nan=True)
        assert not confidence[i, n:].any() and not xyxy[i, n:].any() and not labels[i, n:].any()
        wanted.append(want)
    return wanted


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("nms_thresh", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("plus_one", [False, True])
def test_equal_to_greedy_nms(nms_thresh: float, plus_one: bool, runtime: str) -> None:
    thresholds = Thresholds(nms_thresh=nms_thresh, detections_per_img=300, nms_candidates=1500)
    shapes = [(3, 0.1), (30, 0.15), (80, 0.3)]
    scenes = [crowd(i, objects=n, jitter=jitter) for i, (n, jitter) in enumerate(shapes)]
    found = check(runtime, thresholds, *scenes, plus_one=plus_one)
    assert min(map(len, found)) > 5


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("max_det", [10, 5000])
def test_even_scores(max_det: int, runtime: str) -> None:
    """Chains as long as a row of boxes, for the most candidates that there are by default."""
    thresholds = Thresholds(detections_per_img=max_det)
    found = check(runtime, thresholds, even(5000), even(5000, wide=5000))
    assert [len(one) for one in found] == [min(max_det, n) for n in (2500, 2500)]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_equal_scores_in_their_order(runtime: str) -> None:
    """OpenVINO's TopK puts equal values in any order."""
    thresholds = Thresholds(detections_per_img=400, nms_candidates=2400)
    found = check(runtime, thresholds, *(equal_scores(seed) for seed in range(3)))
    assert min(map(len, found)) > 50


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("length", [24, BLOCK, BLOCK + 1, 3 * BLOCK, 500])
def test_a_chain(length: int, runtime: str) -> None:
    """Boxes in a row, each overlapping the next, in falling score."""
    boxes, scores = even(length, wide=length)
    scores[:, 0] = np.linspace(0.9, 0.1, length)
    (found,) = check(runtime, Thresholds(detections_per_img=300), (boxes, scores))
    assert len(found) == -(-length // 2)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_images_of_a_batch_need_other_numbers_of_blocks(runtime: str) -> None:
    boxes, scores = crowd(0, objects=30, jitter=0.2)
    few = np.where(np.arange(CANDIDATES)[:, None] % 97 == 0, scores, np.float32(0))
    found = check(
        runtime, Thresholds(), (boxes, few), (boxes, 0 * scores), (boxes, scores), (boxes, few)
    )
    assert [len(one) for one in found][1:3] == [0, 100] and 0 < len(found[0]) < 100


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("nms_thresh", [0.0, 1.0])
@pytest.mark.parametrize("score_thresh", [0.0, 1.0])
def test_thresholds_at_their_ends(nms_thresh: float, score_thresh: float, runtime: str) -> None:
    boxes, scores = crowd(0, objects=30, jitter=0.2)
    scores[:9], scores[9:20] = 0, 1
    boxes[50:60] = boxes[50]
    thresholds = Thresholds(
        score_thresh=score_thresh, nms_thresh=nms_thresh, detections_per_img=2400
    )
    (found,) = check(runtime, thresholds, (boxes, scores))
    assert (len(found) == 0) == (score_thresh == 1)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("plus_one", [False, True])
def test_boxes_that_break_rules(plus_one: bool, runtime: str) -> None:
    """All equal, without area, infinite and NaN; and scores of NaN."""
    nan, far = np.float32(np.nan), np.float32(np.inf)
    boxes, scores = crowd(0, objects=30, jitter=0.2)
    boxes[::7] = boxes[0]
    boxes[1::7, 2:] = boxes[1::7, :2]
    boxes[2::7] = boxes[2] * 0
    boxes[3::91] = nan
    boxes[4::91, 2:] = far
    scores[5::13, 1] = nan
    thresholds = Thresholds(detections_per_img=2400)
    with np.errstate(invalid="ignore"):
        (found,) = check(runtime, thresholds, (boxes, scores), plus_one=plus_one)
    assert len(found) > 300 and np.isfinite(found.confidence).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("count", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1])
def test_few_candidates(count: int, runtime: str) -> None:
    """A model so small that it cannot fill its outputs still has them at full length."""
    check(runtime, Thresholds(), even(count), even(count, score=0.01))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_more_than_one_topk_gives(runtime: str) -> None:
    """TensorRT's TopK gives 3840; more are taken in several goes."""
    total = 2 * MAX_TOPK + 100
    boxes, scores = even(total, wide=7)
    rng = np.random.default_rng(0)
    scores[:, 0] = rng.choice(np.linspace(0.01, 1, 50), total).astype(np.float32)
    thresholds = Thresholds(nms_candidates=total, detections_per_img=total)
    (found,) = check(runtime, thresholds, (boxes, scores))
    assert len(found) > 1500


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_only_the_best_pairs_enter(runtime: str) -> None:
    """The 90 best of 2400, where no score is there twice."""
    boxes, scores = crowd(3, objects=60, jitter=0.3)
    assert len(np.unique(scores)) == scores.size
    (found,) = check(runtime, Thresholds(nms_candidates=90, detections_per_img=90), (boxes, scores))
    assert 10 < len(found) < 90 and list(found.limits) == ["candidates"]
