"""The CPU's part: files in each precision, engines of them, and reference detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from retinart.calib.calibrate import CalibrationSettings, calibrate
from retinart.calib.convert import ConvertSettings, convert
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.engine_file import EngineInfo
from retinart.engine.images import Image, list_images
from retinart.engine.info import Precision, read_info
from retinart.engine.tensorrt_api import RuntimeName
from retinart.export.build import BuildSettings, build_engine
from retinart.export.export import ExportSettings, export_checkpoint
from retinart.train.checkpoint import save_checkpoint
from retinart.train.presets import preset
from retinart.train.retinanet import build_retinanet

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8+fp16")
BATCHES = (1, 8, 32)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One network at one size, in every precision."""

    name: str
    imgsz: int
    checkpoint: Path
    files: dict[Precision, Path]


def random_checkpoint(backbone: str, path: Path) -> Path:
    """A checkpoint of 80 classes with random weights: as fast as a trained one."""
    if not path.exists():
        torch.manual_seed(0)
        variant = preset(backbone, 80)
        classes = tuple(f"class {i}" for i in range(80))
        model = build_retinanet(variant, prior=0.01).eval()
        save_checkpoint(path, model=model, variant=variant, classes=classes, training={})
    return path


def export_model(name: str, checkpoint: Path, imgsz: int, images: str, folder: Path) -> Model:
    """Export a checkpoint and calibrate it; files that are there are taken."""
    stem = f"{name}_{imgsz}"
    paths: dict[Precision, Path] = {p: folder / f"{stem}.{p}.onnx" for p in PRECISIONS}
    if not paths["fp32"].exists():
        settings = ExportSettings(imgsz=imgsz, tensorrt=False)
        export_checkpoint(checkpoint, paths["fp32"], settings)
    num = min(16, len(list_images(images)))
    if not paths["int8"].exists():
        calibrate(paths["fp32"], paths["int8"], CalibrationSettings(images=images, num=num))
    halves: tuple[tuple[Precision, Precision], ...] = (("fp32", "fp16"), ("int8", "int8+fp16"))
    for source, half in halves:
        if not paths[half].exists():
            convert(paths[source], paths[half], ConvertSettings(images=images, num=num))
    return Model(name=name, imgsz=imgsz, checkpoint=checkpoint, files=paths)


def build_model(
    path: Path, runtime: RuntimeName | Literal["auto"], nms: Literal["auto", "native"] = "auto"
) -> tuple[Path, EngineInfo]:
    """The engine of a file for batches of 1 to 32, beside it."""
    output = path.with_suffix(".native.engine" if nms == "native" else ".engine")
    settings = BuildSettings(runtime=runtime, batch=BATCHES, nms=nms)
    return output, build_engine(path, output, settings).info


def reference(path: Path, images: Sequence[Image]) -> list[Detections]:
    """What OpenVINO finds on each image with the same file."""
    with Detector(path, runtime="openvino") as detect:
        return [detect(image) for image in images]


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of a file's fixed input."""
    canvas = read_info(path).resize.canvas
    assert canvas is not None
    return canvas
