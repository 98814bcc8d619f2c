"""The CPU's part: files in each precision, engines of them, and reference detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from retinart.calib.calibrate import CalibrationSettings, calibrate
from retinart.calib.convert import ConvertSettings, convert
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.engine_file import EngineInfo, read_engine_info
from retinart.engine.files import sha256
from retinart.engine.gpu import find_gpus
from retinart.engine.images import Image, list_images
from retinart.engine.info import Precision, read_info
from retinart.engine.tensorrt_api import RuntimeName, load_tensorrt
from retinart.export.build import BuildSettings, build_engine, choose_runtime
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


def model_files(name: str, imgsz: int, folder: Path) -> dict[Precision, Path]:
    """Where the files of a network at a size are, or will be."""
    return {p: folder / f"{name}_{imgsz}.{p}.onnx" for p in PRECISIONS}


def export_model(
    name: str, checkpoint: Path | None, imgsz: int, images: str, folder: Path
) -> Model:
    """Export a checkpoint and calibrate it; files that are there are taken.

    Without a checkpoint, `name` is a backbone, which gets random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint is None:
        checkpoint = random_checkpoint(name, folder / f"{name}.pt")
    paths = model_files(name, imgsz, folder)
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
    """The engine of a file for batches of 1 to 32, beside it; one that fits is taken."""
    output = path.with_suffix(".native.engine" if nms == "native" else ".engine")
    settings = BuildSettings(runtime=runtime, batch=BATCHES, nms=nms)
    there = _built(path, output, settings)
    return output, there or build_engine(path, output, settings).info


def _built(path: Path, output: Path, settings: BuildSettings) -> EngineInfo | None:
    """An earlier run's engine, if this one would build the same."""
    if not output.exists():
        return None
    info, gpus = read_engine_info(output), find_gpus()
    runtime = choose_runtime(settings, gpus)
    fits = (
        info.onnx_sha256 == sha256(path)
        and info.runtime == runtime
        and info.version == load_tensorrt(runtime).__version__
        and info.gpu in (None, *(g.name for g in gpus[:1]))
    )
    return info if fits else None


class Found:
    """Detections of images, printed as how many there are."""

    def __init__(self, found: list[Detections]) -> None:
        self._found = found

    def __iter__(self) -> Iterator[Detections]:
        return iter(self._found)

    def __str__(self) -> str:
        return f"{sum(map(len, self._found))} detections on {len(self._found)} images"


def reference(path: Path, images: Sequence[Image]) -> Found:
    """What OpenVINO finds on each image with the same file."""
    with Detector(path, runtime="openvino") as detect:
        return Found([detect(image) for image in images])


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of a file's fixed input."""
    canvas = read_info(path).resize.canvas
    assert canvas is not None
    return canvas
