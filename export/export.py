"""From a checkpoint to one checked ONNX file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from retinart.engine.common.files import atomic_path, sha256
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image, list_images, read_image
from retinart.engine.model.info import ModelInfo, Thresholds
from retinart.engine.model.levels import LEVEL_STRIDES
from retinart.engine.model.onnx_file import check_onnx_output, write_onnx
from retinart.engine.model.resize_rule import PAPER_RATIO, ResizeRule, round_up
from retinart.engine.model.variant import Variant
from retinart.engine.self_test.write import with_probe
from retinart.export import tensorrt_rtx
from retinart.export.checkpoint import load_any
from retinart.export.drop_classes import dropped_classes, without_classes
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
        trained_at, assumed: see `Loaded`.
    """

    path: Path
    info: ModelInfo
    parity: ParityReport
    tensorrt: tensorrt_rtx.TrialBuild | None
    trained_at: tuple[int, int] | None = None
    assumed: tuple[str, ...] = ()

    @property
    def other_size(self) -> bool:
        """Whether objects have other sizes in the input than they had in training."""
        canvas = self.info.resize.canvas or self.info.max_size
        trained = self.trained_at
        return trained is not None and not 0.8 <= min(canvas) / min(trained) <= 1.25


def export_checkpoint(
    checkpoint: Path,
    output: Path,
    settings: ExportSettings,
    *,
    say: Callable[[str], None] = lambda step: None,
) -> ExportReport:
    """Write the ONNX file of a checkpoint, after comparing it with PyTorch.

    Args:
        checkpoint: a file of retinart, torchvision, detectron2, mmdetection or odtk.
        output: where to write. The checks run on the file under a temporary name; it gets its own
            when all have passed.
        settings: what to export.
        say: called with each step's name when it begins.

    Raises:
        BadInput: the checkpoint, a size or the class names are not usable.
        CheckFailed: the file differs from PyTorch, or TensorRT-RTX refuses it.
    """
    check_onnx_output(output, "model.onnx")
    say("reading the checkpoint")
    loaded = load_any(checkpoint, settings=settings.variant)
    classes = loaded.classes if settings.classes is None else settings.classes
    if len(classes) != loaded.variant.num_classes:
        background = (
            ". torchvision counts the background as class 0: for its models write "
            "`__background__` on the first line"
        )
        raise BadInput(
            f"{len(classes)} class names were given for {loaded.variant.num_classes} classes",
            fix="Give one name a line, in the order of the model's outputs"
            + background * (len(classes) + 1 == loaded.variant.num_classes),
        )
    file_hash = sha256(checkpoint)
    dropped = dropped_classes(classes, settings, file_hash)
    variant, model = loaded.variant, loaded.model
    if dropped:
        variant = replace(variant, num_classes=variant.num_classes - len(dropped))
        model = without_classes(model, loaded.variant, dropped)
    no_size = not (settings.imgsz or settings.height or settings.dynamic)
    if no_size and loaded.trained_at is not None:
        height, width = loaded.trained_at
        settings = replace(settings, height=height, width=width)
    rule, smallest, largest = input_size(variant, settings)
    batches = _batches(settings.images, rule, smallest)
    info = ModelInfo(
        name=output.stem,
        classes=classes,
        precision="fp32",
        variant=variant,
        resize=rule,
        min_size=smallest,
        max_size=largest,
        thresholds=_thresholds(variant, settings),
        dropped_classes=dropped,
        provenance={
            "checkpoint": checkpoint.name,
            "checkpoint_sha256": file_hash,
            "versions": {name: version(name) for name in ("retinart", "torch", "onnx")},
            "compared": {"images": sum(len(frames) for frames in batches)},
        },
    )
    info.provenance["preprocessing_sha256"] = info.preprocessing_sha256
    say("making the ONNX graph")
    onnx_model = build_onnx(model, info)
    say("computing the answers of the file's self-test")
    info = with_probe(info, onnx_model.SerializeToString(deterministic=True))
    with atomic_path(output) as temporary:
        write_onnx(onnx_model, info, temporary)
        say("comparing the file with PyTorch")
        parity = check_parity(loaded.model, info, temporary, batches, even_pictures(batches[0]))
        built = None
        if settings.tensorrt and tensorrt_rtx.available():
            say("building it with TensorRT-RTX as a trial")
            built = tensorrt_rtx.check_build(temporary, info, max_batch=4)
    return ExportReport(
        path=output,
        info=info,
        parity=parity,
        tensorrt=built,
        trained_at=loaded.trained_at,
        assumed=loaded.assumed,
    )


def _thresholds(variant: Variant, settings: ExportSettings) -> Thresholds:
    topk = settings.topk_candidates
    if topk is None:
        topk = Thresholds.topk_candidates
    pairs = len(LEVEL_STRIDES) * topk
    return Thresholds(
        topk_candidates=topk,
        nms_candidates=pairs,
        detections_per_img=min(variant.detections_per_img, pairs),
    ).with_changes(conf=settings.conf, iou=settings.iou, max_det=settings.max_det)


def input_size(
    variant: Variant, settings: ExportSettings
) -> tuple[ResizeRule, tuple[int, int], tuple[int, int]]:
    """The resize rule, and the smallest and the largest (height, width) of the input.

    Raises:
        BadInput: the model cannot take the fixed size that the settings name.
    """
    multiple = math.lcm(32, variant.pad_multiple)
    rule = partial(ResizeRule.of_variant, variant, pad_multiple=multiple)
    short = settings.imgsz or DEFAULT_IMGSZ
    if settings.dynamic:
        longest = int(short * PAPER_RATIO)
        largest = round_up(longest, multiple)
        return rule(short_side=short, max_size=longest), (multiple, multiple), (largest, largest)
    if settings.height is None or settings.width is None:
        wide = math.ceil(short * DEFAULT_ASPECT)
        canvas = (round_up(short, multiple), round_up(wide, multiple))
        return rule(short_side=short, canvas=canvas), canvas, canvas
    size = (settings.height, settings.width)
    canvas = (round_up(size[0], multiple), round_up(size[1], multiple))
    if canvas != size:
        raise BadInput(
            f"an input of {size[0]}x{size[1]} is not possible",
            why=f"this model's sides are multiples of {multiple}",
            fix=f"Set `height` to {canvas[0]} and `width` to {canvas[1]}",
        )
    return rule(short_side=settings.imgsz, canvas=canvas), canvas, canvas


def _batches(source: str | None, rule: ResizeRule, smallest: tuple[int, int]) -> list[Image]:
    """Frames to compare on: the user's images, or synthetic ones of several shapes."""
    if source is not None:
        images = [read_image(path) for path in list_images(source)[:4]]
        together = [images] if rule.canvas else [[image] for image in images]
        return [rule.apply(images)[0] for images in together]
    if rule.canvas is not None:
        height, width = rule.canvas
        return [rule.apply([_picture(height, width, seed=1), _picture(width, height, seed=2)])[0]]
    # wide, tall, and the smallest, whose levels hold fewer anchors than are kept
    side = rule.short_side or DEFAULT_IMGSZ
    shapes = ((side, side * 3 // 2), (side * 3 // 2, side))
    together = [[_picture(h, w, seed=h), _picture(h, w, seed=w)] for h, w in shapes]
    return [*(rule.apply(images)[0] for images in together), _picture(*smallest, seed=3)[None]]


def even_pictures(frames: Image) -> Image:
    """Black, white, a picture in a wide black border, and a repeated one: many scores are equal.

    Args:
        frames: (N, H, W, 3) uint8, whose first one is put into the border and repeated.

    Returns:
        (4, H, W, 3).
    """
    frame = frames[0]
    height, width = frame.shape[:2]
    small = cv2.resize(frame, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    border = np.zeros_like(frame)
    border[height // 2 :, width // 2 :][: height // 4, : width // 4] = small
    tile = frame[:32, :32]
    repeated = np.tile(tile, (height // 32, width // 32, 1))
    return np.stack([np.zeros_like(frame), np.full_like(frame, 255), border, repeated])


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
