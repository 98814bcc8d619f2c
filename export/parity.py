"""Does the exported file compute what PyTorch computes? Checked before the file gets its name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from retinart.engine.detections import Detections
from retinart.engine.errors import CheckFailed
from retinart.engine.images import Image
from retinart.engine.info import CANDIDATES, HEADS, OUTPUTS, ModelInfo, Thresholds
from retinart.engine.matching import Match, match
from retinart.engine.nms import detect_from_candidates
from retinart.engine.runners import tensor_probe
from retinart.train.predict import normalize, postprocess
from retinart.train.retinanet import HeadOutputs, RetinaNet

TOLERANCE = 1e-3  # of logits and deltas; grows with values above 10, as float32's own step does
COMPARED = 100  # detections an image, found by lowering the score threshold


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """What was compared, over all images.

    Attributes:
        images: how many, run as one batch.
        head_diff: largest difference of a raw logit or delta, relative to TOLERANCE's scale.
        detections: PyTorch against the file's candidates with NMS in NumPy.
        native: the same candidates' NMS in NumPy against the NMS that is written in the file.
    """

    images: int
    head_diff: float
    detections: Match
    native: Match


def check_parity(
    model: RetinaNet, info: ModelInfo, path: Path, images: list[Image]
) -> ParityReport:
    """Compare a model with its exported file on images, stage by stage.

    Args:
        model: in evaluation mode.
        info: of the file.
        path: the ONNX file; OpenVINO runs it.
        images: each (H, W, 3) uint8 BGR of any size.

    Raises:
        CheckFailed: raw outputs, detections or the two forms of NMS differ.
    """
    frames, _ = info.resize.apply(images)
    tensors = tensor_probe(path, (*HEADS, *CANDIDATES, *OUTPUTS))(frames)
    with torch.inference_mode():
        outputs = model(normalize(torch.from_numpy(frames), info.variant))
    diff = _head_diff(outputs, tensors)
    if not diff <= TOLERANCE:
        raise CheckFailed(
            f"the exported network's raw outputs differ from PyTorch's by {diff:.1e}",
            why=f"{TOLERANCE:.0e} is allowed",
            fix="No file was written. Please report this with the checkpoint's source",
        )
    detections, native = _empty(), _empty()
    size = (frames.shape[1], frames.shape[2])
    plus_one = info.variant.box_plus_one
    for i in range(len(images)):
        boxes, scores = (tensors[name][i] for name in CANDIDATES)
        low = _low_threshold(scores, info.thresholds)
        one = HeadOutputs(*([t[i : i + 1] for t in level] for level in outputs))
        expected = postprocess(one, info.variant, size, low)[0]
        found = detect_from_candidates(boxes, scores, low, plus_one=plus_one)
        if not info.variant.clip_before_nms:
            found = _clipped(found, size)
        detections += match(expected, found, floor=_floor(found, low))

        count, xyxy, confidence, labels = (tensors[name][i] for name in OUTPUTS)
        n = int(count[0])
        in_file = Detections(xyxy=xyxy[:n], confidence=confidence[:n], class_id=labels[:n])
        found = detect_from_candidates(boxes, scores, info.thresholds, plus_one=plus_one)
        if not info.variant.clip_before_nms:
            found = _clipped(found, size)
        native += match(found, in_file)
    report = ParityReport(images=len(images), head_diff=diff, detections=detections, native=native)
    for what, result in (
        ("the exported file's detections differ from PyTorch's", detections),
        ("the NMS written in the file differs from greedy NMS", native),
    ):
        # a float's last bit at the IoU threshold may turn one decision in a hundred images
        if result.missing + result.extra > 0.01 * max(result.matched, 1):
            raise CheckFailed(
                what,
                why=f"{result.matched} match, {result.missing} missing, {result.extra} extra",
                fix="No file was written. Please report this with the checkpoint's source",
            )
    return report


def _head_diff(outputs: HeadOutputs, tensors: dict[str, npt.NDArray[np.float32]]) -> float:
    worst = 0.0
    for name, expected in zip(HEADS, [*outputs.logits, *outputs.deltas], strict=True):
        value = expected.numpy()
        scale = max(1.0, float(np.abs(value).max()) / 10)
        diff = float(np.abs(value - tensors[name]).max()) / scale
        worst = diff if not diff <= worst else worst  # keeps a NaN
    return worst


def _low_threshold(scores: npt.NDArray[np.float32], thresholds: Thresholds) -> Thresholds:
    """Thresholds under which there is something to compare, whatever the image shows."""
    flat = scores.ravel()
    score = float(np.partition(flat, -COMPARED)[-COMPARED]) if flat.size > COMPARED else 0.0
    return dataclasses.replace(thresholds, score_thresh=min(thresholds.score_thresh, score))


def _floor(found: Detections, thresholds: Thresholds) -> float:
    """The score at which a list ends: the threshold, or the last one's when the list is full."""
    if len(found) < thresholds.detections_per_img:
        return thresholds.score_thresh
    return float(found.confidence[-1])


def _clipped(found: Detections, size: tuple[int, int]) -> Detections:
    limit = np.array([size[1], size[0]] * 2, np.float32)
    return dataclasses.replace(found, xyxy=np.clip(found.xyxy, 0, limit))


def _empty() -> Match:
    return Match(matched=0, missing=0, extra=0, score_diff=0.0, corner_diff=0.0)
