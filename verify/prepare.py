"""The CPU's part: files in each precision, their engines, and reference detections."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from retinart.benchmarks.timing.source_hash import GPU, code_hash
from retinart.benchmarks.timing.steps import digest
from retinart.engine.common.files import sha256
from retinart.engine.common.typed_json import write_typed
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.media.images import list_images, read_image
from retinart.engine.model.info import Precision
from retinart.engine.tensorrt.api import EngineRuntime, load_tensorrt
from retinart.engine.tensorrt.engine_file import read_engine_info
from retinart.verify.attempts import Attempts
from retinart.verify.bundle import (
    NAME,
    Bundle,
    Item,
    read_bundle,
    save_detections,
    split,
)

# In the order in which they are seen: small ones first, because they tell the most for their size.
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8", "fp32", "int8+fp16")
BATCHES = (1, 8, 32)
# ONNX Runtime runs the file's own NMS, as the engine does, and is the strict judge. OpenVINO's
# runner clips boxes to the image before NMS.
JUDGES: tuple[Literal["onnxruntime", "openvino"], ...] = ("onnxruntime", "openvino")
CALL = 64 << 20  # bytes that a lent machine takes at a time
LIMIT = 3600  # seconds for a step: R101 at 800 is calibrated on a CPU


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What is made.

    Attributes:
        checkpoint: trained weights, whose detections count.
        images: folder, file or glob.
        num_images: number of images to compare on.
        imgsz: shorter sides.
        precisions: of the engines of the given weights; random ones leave FP32 out.
        backbones: of networks with random weights.
        runtime: of the engines.
        models: folder of files that the GPU's part does not need.
    """

    checkpoint: Path
    images: str
    num_images: int
    imgsz: Sequence[int]
    precisions: Sequence[Precision]
    backbones: Sequence[str]
    runtime: EngineRuntime | Literal["auto"]
    models: Path


def prepare(settings: PrepareSettings, folder: Path, steps: Attempts) -> Bundle:
    """Fill the folder, a step at a time; files that are there are taken.

    Raises:
        BadInput: no checkpoint, no images, or the folder was made from something else.
        MissingDependency: no TensorRT of the wanted kind.
    """
    if not settings.checkpoint.is_file():
        raise BadInput(f"there is no checkpoint at {settings.checkpoint}", fix="Check the path")
    paths = list_images(settings.images)[: settings.num_images]
    of = {
        "checkpoint": sha256(settings.checkpoint),
        "images": digest([sha256(path) for path in paths]),
        "runtime": runtime_version(settings.runtime),
        "code": code_hash(GPU),
    }
    items: dict[str, Item] = {}
    if (folder / NAME).exists():
        old = read_bundle(folder)
        if differ := [key for key in of if old.of.get(key) != of[key]]:
            raise BadInput(
                f"{folder} was made from another {', '.join(differ)}",
                fix="Give another one with `prepare` or `models`",
            )
        items = {item.title: item for item in old.items}
    steps.same("of", of)
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        read_image(path)  # an unreadable image is an error now, not on the GPU
        shutil.copyfile(path, folder / path.name)
    work = settings.models / digest(of)[:16]
    for name in ("given", *settings.backbones):
        for imgsz in settings.imgsz:
            for item in _network(settings, folder, steps, name, imgsz, work):
                items[item.title] = item
    order = PRECISIONS.index
    first = sorted(items.values(), key=lambda i: (not i.trained, order(i.precision)))
    bundle = Bundle(of=of, images=tuple(p.name for p in paths), items=tuple(first))
    write_typed(folder / NAME, bundle)
    return bundle


def print_sizes(folder: Path, bundle: Bundle, pack: int | None) -> None:
    """Print the size of each file, and the packs that the folder goes in."""
    files = [folder / name for name in bundle.files() if (folder / name).is_file()]
    for path in files:
        print(f"{_size(path):>12}  {path.name}")
    total = sum(path.stat().st_size for path in files)
    fits = "fits" if total <= CALL else "does not fit"
    print(f"{_size(*files):>12}  in all, which {fits} into {CALL >> 20} MiB")
    if pack is not None:
        for path in split(folder, pack):
            print(f"{_size(*path.iterdir()):>12}  {path}")
    elif total > CALL:
        print("              --split 48M makes packs of it")


def _size(*paths: Path) -> str:
    return f"{sum(path.stat().st_size for path in paths) / (1 << 20):.1f} MiB"


def _network(
    settings: PrepareSettings, folder: Path, steps: Attempts, name: str, imgsz: int, work: Path
) -> list[Item]:
    """The engines of one network at one size, and their references."""
    title, given = f"{name} at {imgsz}", name == "given"
    checkpoint = settings.checkpoint if given else None
    files = {p: work / f"{name}_{imgsz}.{p}.onnx" for p in PRECISIONS}
    export = partial(export_model, files, name, checkpoint, imgsz, settings.images)
    if not _made(steps, f"export and calibrate {title}", export, *files.values()):
        return []
    items = []
    images = [folder / p.name for p in list_images(settings.images)[: settings.num_images]]
    for precision in settings.precisions:
        if precision == "fp32" and not given:
            continue
        item, path = f"{title}, {precision}", files[precision]
        output = folder / f"{path.stem}.engine"
        build = partial(build_model, path, output, settings.runtime)
        if not _made(steps, f"build {item}", build, output):
            continue
        native, references = "", dict[str, str]()
        for judge in JUDGES if given else ():
            found = folder / f"{path.stem}.{judge}.npz"
            look = partial(reference, path, images, judge, found)
            if _made(steps, f"reference of {item} by {judge}", look, found):
                references[judge] = found.name
        nms = read_engine_info(output).nms
        if given and nms != "graph":
            other = folder / f"{path.stem}.native.engine"
            build = partial(build_model, path, other, settings.runtime, nms="graph")
            if _made(steps, f"build {item}, native NMS", build, other):
                native = other.name
        items.append(
            Item(
                title=item,
                trained=given,
                precision=precision,
                engine=output.name,
                nms=nms,
                native=native,
                references=references,
            )
        )
    return items


def _made(steps: Attempts, name: str, work: Callable[[], object], *outputs: Path) -> bool:
    """Run a step, if its files are not there from an earlier run; whether it went well."""
    if steps.good(name) and not all(path.exists() for path in outputs):
        steps.forget(name)
    steps.run(name, work, LIMIT)
    return steps.good(name)


def export_model(
    paths: dict[Precision, Path], name: str, checkpoint: Path | None, imgsz: int, images: str
) -> list[str]:
    """Export a checkpoint and calibrate it; files that are there are taken.

    Args:
        paths: of the files to make.
        name: a backbone. It gets random weights if `checkpoint` is None.
        checkpoint: to export.
        imgsz: shorter side.
        images: to calibrate on.

    Returns:
        The names of the files.
    """
    from retinart.calib.calibrate import calibrate
    from retinart.calib.convert import convert
    from retinart.calib.settings import CalibrationSettings, ConvertSettings
    from retinart.export.export import export_checkpoint
    from retinart.export.settings import ExportSettings

    fp32, int8 = paths["fp32"], paths["int8"]
    fp32.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint is None:
        from retinart.benchmarks.grid.steps import random_checkpoint

        checkpoint = fp32.parent / f"{name}.pth"
        if not checkpoint.exists():
            random_checkpoint(checkpoint, name, 80, read_image(list_images(images)[0]))
    if not fp32.exists():
        export_checkpoint(checkpoint, fp32, ExportSettings(imgsz=imgsz, tensorrt=False))
    num = min(16, len(list_images(images)))
    if not int8.exists():
        calibrate(fp32, int8, CalibrationSettings(images=images, num=num))
    for source, half in ((fp32, paths["fp16"]), (int8, paths["int8+fp16"])):
        if not half.exists():
            convert(source, half, ConvertSettings(images=images, num=num))
    return [path.name for path in paths.values()]


def runtime_version(runtime: EngineRuntime | Literal["auto"]) -> str:
    """The runtime that engines are built for here."""
    from retinart.export.build import choose_runtime
    from retinart.export.settings import BuildSettings

    chosen = choose_runtime(BuildSettings(runtime=runtime), find_gpus())
    return f"{chosen} {load_tensorrt(chosen).__version__}"


def build_model(
    path: Path,
    output: Path,
    runtime: EngineRuntime | Literal["auto"],
    nms: Literal["auto", "graph"] = "auto",
) -> dict[str, Any]:
    """Build the engine of a file for batches of 1 to 32; figures of the build."""
    from retinart.export.build import build_engine
    from retinart.export.settings import BuildSettings

    settings = BuildSettings(runtime=runtime, batch=BATCHES, nms=nms)
    info = build_engine(path, output, settings).info
    return {
        "nms": info.nms,
        "seconds": round(info.build_seconds, 1),
        "size": _size(output),
        "for": f"{info.runtime} {info.version}",
        "gpu": info.gpu,
    }


def reference(
    path: Path, images: Sequence[Path], judge: Literal["onnxruntime", "openvino"], output: Path
) -> str:
    """Write what a runtime finds on each image with the same file."""
    with Detector(path, runtime=judge) as detect:
        found = [detect(read_image(image)) for image in images]
    save_detections(output, found)
    return f"{sum(map(len, found))} detections on {len(found)} images"
