"""From a checkpoint to one checked ONNX file."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from retinart.engine.common.files import atomic_path, sha256
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image, list_images, read_image
from retinart.engine.model.info import METADATA_KEY, ModelInfo, Thresholds
from retinart.engine.model.resize import PAPER_RATIO, ResizeRule, round_up
from retinart.engine.model.variant import Variant
from retinart.engine.self_test.write import with_probe
from retinart.export import tensorrt_rtx
from retinart.export.checkpoint import load_any
from retinart.export.onnx_model import build_onnx
from retinart.export.parity import ParityReport, check_parity
from retinart.export.settings import DEFAULT_IMGSZ, ExportSettings

DEFAULT_ASPECT = 4 / 3


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """An export that succeeded.

    Attributes:
        path: the file.
        info: its metadata.
        parity: the comparison with PyTorch.
        tensorrt: the build with TensorRT-RTX, or None where it is not installed or not wanted.
    """

    path: Path
    info: ModelInfo
    parity: ParityReport
    tensorrt: tensorrt_rtx.BuildReport | None


def export_checkpoint(checkpoint: Path, output: Path, settings: ExportSettings) -> ExportReport:
    """Write the ONNX file of a checkpoint, after comparing it with PyTorch.

    Args:
        checkpoint: a file of retinart, torchvision, detectron2, mmdetection or odtk.
        output: where to write; it appears only when every check has passed.
        settings: what to export.

    Raises:
        BadInput: the checkpoint, a size or the class names are not usable.
        CheckFailed: the file differs from PyTorch, or TensorRT-RTX refuses it.
    """
    if output.suffix != ".onnx":
        raise BadInput(f"the output {output} does not end in .onnx", fix="Name it model.onnx")
    loaded = load_any(checkpoint, settings=settings.variant)
    classes = loaded.classes if settings.classes is None else settings.classes
    if len(classes) != loaded.variant.num_classes:
        raise BadInput(
            f"{len(classes)} class names were given for {loaded.variant.num_classes} classes",
            fix="Give one name a line, in the order of the model's outputs",
        )
    rule, smallest, largest = input_size(loaded.variant, settings)
    info = ModelInfo(
        name=output.stem,
        classes=classes,
        precision="fp32",
        variant=loaded.variant,
        resize=rule,
        min_size=smallest,
        max_size=largest,
        thresholds=_thresholds(loaded.variant, settings),
        provenance={
            "checkpoint": checkpoint.name,
            "checkpoint_sha256": sha256(checkpoint),
            "versions": {name: version(name) for name in ("retinart", "torch", "onnx")},
        },
    )
    model = build_onnx(loaded.model, info)
    with atomic_path(output) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        parity = check_parity(loaded.model, info, temporary, _batches(settings.images, info))
        compared = {"images": parity.images, "detections": parity.detections.matched}
        info = dataclasses.replace(
            info,
            provenance={
                **info.provenance,
                "preprocessing_sha256": info.preprocessing_sha256,
                "compared": compared,
            },
        )
        info = with_probe(info, temporary.read_bytes())
        onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        built = None
        if settings.tensorrt and tensorrt_rtx.available():
            built = tensorrt_rtx.check_build(temporary, info, max_batch=4)
    return ExportReport(path=output, info=info, parity=parity, tensorrt=built)


def _thresholds(variant: Variant, settings: ExportSettings) -> Thresholds:
    wanted: dict[str, Any] = {
        "score_thresh": settings.conf,
        "nms_thresh": settings.iou,
        "detections_per_img": settings.max_det,
    }
    usual = Thresholds(detections_per_img=variant.detections_per_img)
    return dataclasses.replace(usual, **{k: v for k, v in wanted.items() if v is not None})


def input_size(
    variant: Variant, settings: ExportSettings
) -> tuple[ResizeRule, tuple[int, int], tuple[int, int]]:
    """The resize rule, and the smallest and the largest (height, width) of the input."""
    multiple = math.lcm(32, variant.pad_multiple)
    imgsz, size = settings.imgsz, (settings.height, settings.width)
    canvas: tuple[int, int] | None = None
    if size[0] is not None and size[1] is not None:
        canvas = (round_up(size[0], multiple), round_up(size[1], multiple))
        if canvas != size:
            raise BadInput(
                f"an input of {size[0]}x{size[1]} is not possible",
                why=f"this model's sides are multiples of {multiple}",
                fix=f"Set `height` to {canvas[0]} and `width` to {canvas[1]}",
            )
    short = imgsz
    if canvas is None:
        short = imgsz or DEFAULT_IMGSZ
    longest = None
    if settings.dynamic and short is not None:
        longest = int(short * PAPER_RATIO)
    elif canvas is None and short is not None:
        wide = round_up(math.ceil(short * DEFAULT_ASPECT), multiple)
        canvas = (round_up(short, multiple), wide)
    rule = ResizeRule(
        short_side=short,
        max_size=longest,
        canvas=canvas,
        pad_multiple=multiple,
        pad_value=variant.pad_value,
    )
    if canvas is not None:
        return rule, canvas, canvas
    assert longest is not None
    return rule, (multiple, multiple), (round_up(longest, multiple),) * 2


def _batches(source: str | None, info: ModelInfo) -> list[Image]:
    """Frames to compare on: the user's images, or synthetic ones of several shapes."""
    if source is not None:
        images = [read_image(path) for path in list_images(source)[:4]]
        together = [images] if info.resize.canvas else [[image] for image in images]
    elif info.resize.canvas is not None:
        height, width = info.resize.canvas
        together = [[_picture(height, width, seed=1), _picture(width, height, seed=2)]]
    else:  # wide, tall, and the smallest, whose levels hold fewer anchors than are kept
        side = info.resize.short_side or info.max_size[0]
        shapes = ((side, side * 3 // 2), (side * 3 // 2, side))
        together = [[_picture(h, w, seed=h), _picture(h, w, seed=w)] for h, w in shapes]
        smallest = np.stack([_picture(*info.min_size, seed=3)])
        return [*(info.resize.apply(images)[0] for images in together), smallest]
    return [info.resize.apply(images)[0] for images in together]


def _picture(height: int, width: int, *, seed: int) -> Image:
    """Smooth colours with rectangles and noise: something for every level to respond to."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 8, 3), np.uint8)
    image = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    for _ in range(12):
        y, x = rng.integers(0, height), rng.integers(0, width)
        h, w = rng.integers(8, max(9, height // 2)), rng.integers(8, max(9, width // 2))
        image[y : y + h, x : x + w] = rng.integers(0, 255, 3)
    noise = rng.normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)
