"""Check that an exported file computes what PyTorch computes, before the file gets its name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retinart.engine.detections import Detections
from retinart.engine.errors import CheckFailed
from retinart.engine.evaluation.matching import Match, match
from retinart.engine.media.images import Image
from retinart.engine.model.info import CANDIDATES, HEADS, OUTPUTS, ModelInfo, Thresholds
from retinart.engine.runtime.nms import clip_boxes, detect_from_candidates
from retinart.engine.runtime.openvino_probe import tensor_probe
from retinart.export.drop_classes import kept_channels
from retinart.train.model.predict import normalize, postprocess
from retinart.train.model.retinanet import HeadOutputs, RetinaNet

TOLERANCE = 1e-3  # of logits and deltas; grows with values above 10, as float32's spacing does
COMPARED = 100  # detections of an image; the score threshold is lowered until there are as many
Tensors = dict[str, npt.NDArray[Any]]  # of the file, by name
_FIX = "No file was written. Please report this with the checkpoint's source"


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """What was compared, over all images.

    Attributes:
        images: how many.
        head_diff: largest difference of a raw logit or delta, on the scale of TOLERANCE.
        detections: PyTorch against the file's candidates with NMS in NumPy.
        native: NMS in NumPy against the file's own NMS, on the file's candidates.
        even: the same on pictures that are mostly even; see `even_pictures`.
    """

    images: int
    head_diff: float
    detections: Match
    native: Match
    even: Match


def check_parity(
    model: RetinaNet, info: ModelInfo, path: Path, batches: list[Image], even: Image
) -> ParityReport:
    """Compare a model with its exported file on images, stage by stage.

    Args:
        model: the checkpoint's, in evaluation mode. The file's classes are compared.
        info: of the file.
        path: the ONNX file; OpenVINO runs it.
        batches: frames (N, H, W, 3) uint8 BGR, of sizes that the file takes.
        even: such frames, on which the two forms of NMS are compared.

    Raises:
        CheckFailed: raw outputs, detections or the two forms of NMS differ, or a raw output is NaN
            or infinite.
    """
    probe = tensor_probe(path, (*HEADS, *CANDIDATES, *OUTPUTS))
    worst, detections, native, native_even = 0.0, Match(), Match(), Match()
    for frames in batches:
        tensors = probe(frames)
        with torch.inference_mode():
            outputs = model(normalize(torch.from_numpy(frames), info.variant))
        outputs = HeadOutputs(kept_channels(outputs.logits, info), outputs.deltas)
        worst = max(worst, _head_diff(outputs, tensors))
        for i in range(len(frames)):
            one = HeadOutputs(*([t[i : i + 1] for t in level] for level in outputs))
            here = {name: t[i] for name, t in tensors.items()}
            detections += _compare(info, one, here)
            native += _compare_nms(info, here, frames.shape[1:3])
    for frame in even:  # one at a time: their memory is the largest of all
        tensors = probe(frame[None])
        here = {name: t[0] for name, t in tensors.items()}
        native_even += _compare_nms(info, here, frame.shape[:2])
    report = ParityReport(
        images=sum(map(len, batches)),
        head_diff=worst,
        detections=detections,
        native=native,
        even=native_even,
    )
    for what, result in (
        ("the exported file's detections differ from PyTorch's", detections),
        ("the file's own NMS differs from greedy NMS", native),
        ("the file's own NMS differs from greedy NMS on even pictures", native_even),
    ):
        # at the IoU threshold a float's last bit decides; it may turn one decision in 100 images
        if result.missing + result.extra > 0.01 * max(result.matched, 1):
            raise CheckFailed(
                what,
                why=f"{result.matched} match, {result.missing} missing, {result.extra} extra",
                fix=_FIX,
            )
    if not detections.matched:
        raise CheckFailed("nothing could be compared", why="no image gave a candidate", fix=_FIX)
    return report


def _compare(info: ModelInfo, outputs: HeadOutputs, tensors: Tensors) -> Match:
    """PyTorch against the file's candidates with NMS in NumPy, for one image."""
    size = (8 * outputs.logits[0].shape[2], 8 * outputs.logits[0].shape[3])
    low = _low_threshold(tensors[CANDIDATES[1]], info.thresholds)
    found = _in_numpy(info, tensors, size, low)
    expected = postprocess(outputs, info.variant, size, low)[0]
    classes = np.array(info.class_ids, np.int32)[expected.class_id]
    expected = dataclasses.replace(expected, class_id=classes)
    return match(expected, found, floor=_floor(found, low))


def _compare_nms(info: ModelInfo, tensors: Tensors, size: tuple[int, int]) -> Match:
    """NumPy's NMS against the file's, for one image."""
    count, xyxy, confidence, labels = (tensors[name] for name in OUTPUTS)
    n = int(count[0])
    in_file = Detections(xyxy=xyxy[:n], confidence=confidence[:n], class_id=labels[:n])
    return match(_in_numpy(info, tensors, size, info.thresholds), in_file)


def _in_numpy(
    info: ModelInfo,
    tensors: Tensors,
    size: tuple[int, int],
    thresholds: Thresholds,
) -> Detections:
    """Detections of one image's candidates, clipped to the frame as the file clips."""
    boxes, scores = (tensors[name] for name in CANDIDATES)
    plus_one = info.variant.box_plus_one
    found = detect_from_candidates(
        boxes, scores, thresholds, plus_one=plus_one, class_ids=info.class_ids
    )
    if info.variant.clip_before_nms:
        return found
    return dataclasses.replace(found, xyxy=clip_boxes(found.xyxy, size, plus_one=plus_one))


def _head_diff(outputs: HeadOutputs, tensors: Tensors) -> float:
    """Largest difference of a raw output, on the scale on which TOLERANCE is the limit.

    Raises:
        CheckFailed: it is above the limit, or an output is NaN or infinite.
    """
    worst = 0.0
    for name, expected in zip(HEADS, [*outputs.logits, *outputs.deltas], strict=True):
        value = expected.numpy()
        if not (np.isfinite(value).all() and np.isfinite(tensors[name]).all()):
            raise CheckFailed(
                f"the raw output {name} is NaN or infinite",
                why="the checkpoint's weights hold NaN, or their values are far out of range",
                fix="No file was written. Check the checkpoint",
            )
        scale = max(1.0, float(np.abs(value).max()) / 10)
        worst = max(worst, float(np.abs(value - tensors[name]).max()) / scale)
    if worst > TOLERANCE:
        raise CheckFailed(
            f"the exported network's raw outputs differ from PyTorch's by {worst:.1e}",
            why=f"the limit is {TOLERANCE:.0e}",
            fix=_FIX,
        )
    return worst


def _low_threshold(scores: npt.NDArray[np.float32], thresholds: Thresholds) -> Thresholds:
    """The same with a score so low that any image gives something to compare."""
    flat = scores.ravel()
    score = float(np.partition(flat, -COMPARED)[-COMPARED]) if flat.size > COMPARED else 0.0
    return dataclasses.replace(thresholds, score_thresh=min(thresholds.score_thresh, score))


def _floor(found: Detections, thresholds: Thresholds) -> float:
    """The score at which a list ends: the threshold, or the last score of a full list."""
    if len(found) < thresholds.detections_per_img:
        return thresholds.score_thresh
    return float(found.confidence[-1])
