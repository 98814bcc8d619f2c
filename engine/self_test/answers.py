"""What a network answers to a picture, in the form that a probe keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from retinart.engine.detections import Detections
from retinart.engine.media.images import Image
from retinart.engine.model.info import CANDIDATES, HEADS, ModelInfo, Thresholds
from retinart.engine.model.probe import Probe
from retinart.engine.runtime.nms import detect_from_candidates
from retinart.engine.runtime.runner import Floats
from retinart.engine.self_test.picture import probe_positions

Tensors = Callable[[Sequence[str], Image], dict[str, Floats]]
KEPT = 50  # candidates and detections that a probe holds at most


def noise(probe: Probe, tensors: dict[str, Floats]) -> float:
    """Noise over signal of the raw outputs at the probe's positions.

    It is the root of the mean squared error over the variance of each output, averaged over the
    outputs. It is not finite where any value of an output is not.
    """
    ratios = []
    for name, positions in positions_in(probe.seed, tensors):
        found = tensors[name].ravel()[positions].astype(np.float64)
        expected = np.array(probe.raw[name])
        error = float(np.square(found - expected).mean())
        finite = bool(np.isfinite(tensors[name]).all())
        ratios.append(error / max(float(expected.var()), 1e-12) if finite else np.inf)
    return float(np.sqrt(np.mean(ratios)))


def positions_in(seed: int, tensors: dict[str, Floats]) -> list[tuple[str, npt.NDArray[np.intp]]]:
    return [(name, probe_positions(seed, i, tensors[name].size)) for i, name in enumerate(HEADS)]


def best_candidates(tensors: dict[str, Floats], info: ModelInfo) -> Detections:
    """The KEPT (anchor, class) pairs with the highest scores, best first, before any NMS."""
    boxes, scores = (tensors[name][0] for name in CANDIDATES)
    order = np.argsort(-scores.ravel(), kind="stable")[:KEPT]
    row, label = np.divmod(order, info.variant.num_classes)
    return Detections(
        xyxy=boxes[row],
        confidence=scores.ravel()[order],
        class_id=np.array(info.class_ids, np.int32)[label],
    )


def nms_of(
    tensors: dict[str, Floats], info: ModelInfo, thresholds: Thresholds, size: tuple[int, int]
) -> Detections:
    """What greedy NMS keeps of candidates, clipped to the picture."""
    boxes, scores = (tensors[name][0] for name in CANDIDATES)
    variant = info.variant
    clip = variant.clip_size(info.resize.canvas_for([size]), size)
    return detect_from_candidates(
        boxes,
        scores,
        thresholds,
        plus_one=variant.box_plus_one,
        clip_to=clip if variant.clip_before_nms else None,
        class_ids=info.class_ids,
    )


def rows_of(found: Detections, most: int = KEPT) -> tuple[tuple[float, ...], ...]:
    """The best detections as x1, y1, x2, y2, score and class."""
    return tuple(
        (*(short(v) for v in box), short(score), float(label))
        for box, score, label in list(found)[:most]
    )


def short(value: np.floating[npt.NBitBase] | float) -> float:
    """Six digits: a file's text stays small."""
    return float(f"{float(value):.6g}")
