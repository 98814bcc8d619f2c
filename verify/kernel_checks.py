"""Checks of the two kernels on a GPU, against what a CPU computes; see `cuda_checks.py`."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from retinart.engine.cuda.open_gpu import Binding
from retinart.engine.media.images import Image
from retinart.engine.model.info import Thresholds
from retinart.engine.model.resize_rule import ResizeRule
from retinart.engine.model.variant import Interpolation
from retinart.engine.runtime.nms import detect_from_candidates
from retinart.engine.tensorrt.gpu_resize import GpuResize, batch_shape, plan_resize
from retinart.engine.tensorrt.kernels import ptx_path
from retinart.verify.gpu_workspace import Desk, desk, some_bytes
from retinart.verify.judge import Figures, judged

Floats = npt.NDArray[np.float32]
# (image, canvas): down, up, by two exactly, odd
PICTURES = (((720, 1280), (480, 640)), ((40, 60), (160, 224)), ((192, 256), (96, 128)),
            ((333, 501), (320, 480)))  # fmt: skip
# candidates, classes, and the number of scores that they have, which makes ties; None for any
SCENES = ((300, 3, None), (1500, 4, 25), (2000, 80, None), (4000, 1, 40))


def resize(binding: Binding) -> Figures:
    """Compare the pictures of the resize kernel with the pictures that the CPU makes.

    They are equal to the bit, but in the form "float" 1.5 of 100 values may differ, by one.
    """
    figures, faults = Figures(), list[str]()
    for form in get_args(Interpolation):
        share, most = 0.0, 0
        for size, canvas in PICTURES:
            rule = rule_of(form, canvas)
            images = [some_bytes(3 * size[0] * size[1]).reshape(*size, 3)] * 2
            with desk(binding) as at:
                frames = _resized(at, images, rule)
            differ = np.abs(frames.astype(int) - rule.apply(images)[0])
            share, most = max(share, float(np.mean(differ != 0))), max(most, int(differ.max()))
        figures[form] = {"share that differs": round(share, 5), "by": most}
        if (share > 0.015 or most > 1) if form == "float" else most:
            faults.append(f"{form}: pictures of the GPU are not the CPU's")
    return judged(figures, faults)


def nms(binding: Binding) -> Figures:
    """Detections of the NMS kernel against greedy NMS on the CPU, to the bit."""
    figures, faults, limits = Figures(), list[str](), Thresholds(detections_per_img=1000)
    for candidates, classes, steps in SCENES:
        name = f"{candidates} candidates, {classes} classes" + (", ties" if steps else "")
        boxes, scores = _crowd(candidates, classes, steps)
        with desk(binding) as at:
            count, xyxy, confidence, labels, ms = _suppressed(at, boxes, scores, limits)
        differ, kept = 0, 0
        for i in range(len(boxes)):
            want, n = detect_from_candidates(boxes[i], scores[i], limits), int(count[i])
            kept += n
            same = n == len(want) and all(
                np.array_equal(a[i, :n], b)
                for a, b in ((xyxy, want.xyxy), (confidence, want.confidence),
                             (labels, want.class_id))
            )  # fmt: skip
            differ += not same
        figures[name] = {"kept": kept, "images that differ": differ, "ms": round(ms, 3)}
        if differ or not kept:
            faults.append(f"{name}: {differ} of {len(boxes)} images differ, {kept} boxes kept")
    return judged(figures, faults)


def rule_of(form: Interpolation, canvas: tuple[int, int]) -> ResizeRule:
    """A rule that pads to a canvas."""
    return ResizeRule(
        short_side=None,
        max_size=None,
        canvas=canvas,
        pad_multiple=32,
        pad_value=(104, 116, 124),
        interpolation=form,
    )


def _resized(at: Desk, images: list[Image], rule: ResizeRule) -> Image:
    """A batch that the GPU resized."""
    resizer, planned = GpuResize(at.cuda, at.stream, rule), plan_resize(rule, images)
    shape = batch_shape(rule, planned)
    nbytes = int(np.prod(shape))
    address = at.device(nbytes)
    resizer.enqueue(images, planned, shape, address)
    frames = at.fetch(address, nbytes).reshape(shape)
    resizer.free()
    return frames


def _crowd(candidates: int, classes: int, steps: int | None) -> tuple[Floats, Floats]:
    """Boxes (3, C, 4) round a few objects, and scores (3, C, K)."""
    rng = np.random.default_rng(candidates)
    owner = rng.integers(0, 30, (3, candidates))
    center, side = rng.uniform(0, 800, (30, 2)), rng.uniform(20, 250, (30, 2))
    center = center[owner] + rng.normal(0, 0.3, (*owner.shape, 2)) * side[owner]
    boxes = np.concatenate([center - side[owner] / 2, center + side[owner] / 2], axis=2)
    scores = rng.uniform(0, 0.06, (*owner.shape, classes))
    np.put_along_axis(scores, owner[..., None] % classes, rng.uniform(0.1, 1, (*owner.shape, 1)), 2)
    scores = scores if steps is None else np.round(scores * steps) / steps
    return boxes.astype(np.float32), scores.astype(np.float32)


def _suppressed(
    at: Desk, boxes: Floats, scores: Floats, limits: Thresholds
) -> tuple[npt.NDArray[np.int32], Floats, Floats, npt.NDArray[np.int32], float]:
    """The kernel's four outputs, and its milliseconds.

    The kernel gets the arguments that `retinart.export.nms_plugin.scalars` gives, which needs onnx.
    """
    kernel = at.cuda.kernel(ptx_path("nms").read_bytes(), "retinart_nms")
    images, candidates, classes = scores.shape
    most = limits.detections_per_img
    inputs = [at.send(a) for a in (boxes, scores, np.zeros(4, np.float32))]
    outputs = [at.device(4 * images * n) for n in (1, 4 * most, most, most)]
    bits = np.array([limits.score_thresh, limits.nms_thresh], np.float32).view(np.int32)
    whole = (candidates, classes, limits.nms_candidates, most, *bits, 0)
    arguments: list[np.generic] = [
        *map(np.uint64, inputs), *map(np.int32, whole), *map(np.uint64, outputs)
    ]  # fmt: skip
    begin = at.stream.record()
    kernel.launch(at.stream, (images, 1), (1024, 1), arguments)
    end = at.stream.record()
    count, xyxy, confidence, labels = (
        at.fetch(address, 4 * images * n)
        for address, n in zip(outputs, (1, 4 * most, most, most), strict=True)
    )
    ms = end.ms_since(begin)
    del begin, end
    shape = (images, most)
    return (
        count.view(np.int32), xyxy.view(np.float32).reshape(*shape, 4),
        confidence.view(np.float32).reshape(shape), labels.view(np.int32).reshape(shape), ms,
    )  # fmt: skip
