"""The CPU's part of the work: files in each precision, engines of them, reference detections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from retinart.benchmarks.gpu.bundle import save_detections
from retinart.engine.common.files import sha256
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.detector import Detector
from retinart.engine.media.images import Image, list_images
from retinart.engine.model.info import Precision
from retinart.engine.tensorrt.api import EngineRuntime, load_tensorrt
from retinart.engine.tensorrt.engine_file import EngineInfo, read_engine_info

# In the order in which they are seen: small ones first, as they tell the most for their weight.
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8", "fp32", "int8+fp16")
BATCHES = (1, 8, 32)
JUDGES: tuple[Literal["onnxruntime", "openvino"], ...] = ("onnxruntime", "openvino")


def random_checkpoint(backbone: str, path: Path) -> Path:
    """A checkpoint of 80 classes with random weights: as fast as a trained one."""
    if not path.exists():
        import torch

        from retinart.train.model.checkpoint import save_checkpoint
        from retinart.train.model.presets import preset
        from retinart.train.model.retinanet import build_retinanet

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
) -> list[str]:
    """Export a checkpoint and calibrate it; files that are there are taken.

    Without a checkpoint, `name` is a backbone, which gets random weights.

    Returns:
        The names of the files.
    """
    from retinart.calib.calibrate import calibrate
    from retinart.calib.convert import convert
    from retinart.calib.settings import CalibrationSettings, ConvertSettings
    from retinart.export.export import export_checkpoint
    from retinart.export.settings import ExportSettings

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
    return [path.name for path in paths.values()]


def runtime_version(runtime: EngineRuntime | Literal["auto"]) -> str:
    """Which runtime engines are built for here."""
    from retinart.export.build import choose_runtime
    from retinart.export.settings import BuildSettings

    chosen = choose_runtime(BuildSettings(runtime=runtime), find_gpus())
    return f"{chosen} {load_tensorrt(chosen).__version__}"


def build_model(
    path: Path,
    output: Path,
    runtime: EngineRuntime | Literal["auto"],
    nms: Literal["auto", "native"] = "auto",
) -> dict[str, Any]:
    """The engine of a file for batches of 1 to 32; one that is there and fits is taken.

    Returns:
        What there is to say of it.
    """
    from retinart.export.build import build_engine
    from retinart.export.settings import BuildSettings

    settings = BuildSettings(runtime=runtime, batch=BATCHES, nms=nms)
    info = _built(path, output, settings) or build_engine(path, output, settings).info
    return {
        "nms": info.nms,
        "seconds": round(info.build_seconds, 1),
        "MiB": round(output.stat().st_size / (1 << 20), 1),
        "for": f"{info.runtime} {info.version}",
        "gpu": info.gpu,
    }


def _built(path: Path, output: Path, settings: Any) -> EngineInfo | None:
    """An earlier run's engine, if this one would build the same."""
    from retinart.export.build import choose_runtime

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


def reference(
    path: Path, images: Sequence[Image], judge: Literal["onnxruntime", "openvino"], output: Path
) -> str:
    """Write what a runtime finds on each image with the same file.

    ONNX Runtime runs the file's own NMS, as the engine does, and is the strict judge; OpenVINO's
    boxes are clipped to the image before NMS, and not to the frame.
    """
    with Detector(path, runtime=judge) as detect:
        found = [detect(image) for image in images]
    save_detections(output, found)
    return f"{sum(map(len, found))} detections on {len(found)} images"
