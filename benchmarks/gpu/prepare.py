"""The CPU's part: everything that the GPU's part needs, put into one folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from retinart.benchmarks.gpu import models
from retinart.benchmarks.gpu.attempts import Attempts
from retinart.benchmarks.gpu.bundle import (
    CALL,
    NAME,
    Bundle,
    Item,
    megabytes,
    split,
    weights,
)
from retinart.benchmarks.timing.code import GPU, code_hash
from retinart.engine.common.files import sha256
from retinart.engine.errors import BadInput
from retinart.engine.media.images import list_images, read_image
from retinart.engine.model.info import Precision
from retinart.engine.tensorrt.api import EngineRuntime
from retinart.engine.tensorrt.engine_file import read_engine_info

LIMIT = 3600  # seconds for a step: R101 at 800 is calibrated on a CPU


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What is made.

    Attributes:
        checkpoint: trained weights, whose detections count.
        images: folder, file or glob.
        num_images: how many of them are compared on.
        imgsz: shorter sides.
        precisions: of the engines of the given weights; those of random ones leave FP32 out.
        backbones: of networks with random weights besides.
        runtime: whose engines.
        models: where files are kept that the GPU's part does not need.
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
    """Fill the folder, a step at a time; what is there is taken.

    Raises:
        BadInput: no checkpoint, no images, or the folder was made from something else.
        MissingDependency: no TensorRT of the wanted kind.
    """
    if not settings.checkpoint.is_file():
        raise BadInput(f"there is no checkpoint at {settings.checkpoint}", fix="Check the path")
    paths = list_images(settings.images)[: settings.num_images]
    of = {
        "checkpoint": sha256(settings.checkpoint),
        "images": _digest([sha256(path) for path in paths]),
        "runtime": models.runtime_version(settings.runtime),
        "code": code_hash(GPU),
    }
    old = Bundle.load(folder) if (folder / NAME).exists() else None
    if old is not None and old.of != of:
        differ = [k for k in of if old.of.get(k) != of[k]]
        raise BadInput(
            f"{folder} was made from another {', '.join(differ)}",
            fix="Name another one with --prepare, or --models",
        )
    steps.same("of", of)
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        read_image(path)  # one that cannot be read is to be said now
        shutil.copyfile(path, folder / path.name)
    items = {item.title: item for item in (old.items if old is not None else ())}
    work = settings.models / _digest(list(of.values()))
    for name in ("given", *settings.backbones):
        for imgsz in settings.imgsz:
            items |= {i.title: i for i in _network(settings, folder, steps, name, imgsz, work)}
    order = models.PRECISIONS.index
    first = sorted(items.values(), key=lambda i: (not i.trained, order(i.precision)))
    bundle = Bundle(folder=folder, of=of, images=tuple(p.name for p in paths), items=tuple(first))
    bundle.save()
    return bundle


def say_weights(folder: Path, pack: int | None) -> None:
    """Print what each file weighs, and the packs that the folder goes in."""
    files = weights(folder)
    for name, size in files.items():
        print(f"{megabytes(size):>12}  {name}")
    total = sum(files.values())
    fits = "fits" if total <= CALL else "does not fit"
    print(f"{megabytes(total):>12}  in all, which {fits} into {megabytes(CALL)}")
    if pack is not None:
        for path in split(folder, pack):
            print(f"{megabytes(sum(f.stat().st_size for f in path.iterdir())):>12}  {path}")
    elif total > CALL:
        print("              --split 48M makes packs of it")


def _network(
    settings: PrepareSettings, folder: Path, steps: Attempts, name: str, imgsz: int, work: Path
) -> list[Item]:
    """The engines of one network at one size, and their references."""
    title, given = f"{name} at {imgsz}", name == "given"
    checkpoint = settings.checkpoint if given else None
    files = models.model_files(name, imgsz, work)
    export = partial(models.export_model, name, checkpoint, imgsz, settings.images, work)
    if not _made(steps, f"export and calibrate {title}", export, *files.values()):
        return []
    items = []
    images = [folder / p.name for p in list_images(settings.images)[: settings.num_images]]
    for precision in settings.precisions:
        if precision == "fp32" and not given:
            continue
        item = f"{title}, {precision}"
        path, stem = files[precision], f"{name}_{imgsz}.{precision}"
        output = folder / f"{stem}.engine"
        build = partial(models.build_model, path, output, settings.runtime)
        if not _made(steps, f"build {item}", build, output):
            continue
        native, references = "", dict[str, str]()
        if given:
            for judge in models.JUDGES:
                found = folder / f"{stem}.{judge}.npz"
                look = partial(_reference, path, images, judge, found)
                if _made(steps, f"reference of {item} by {judge}", look, found):
                    references[judge] = found.name
            if read_engine_info(output).nms == "plugin":
                other = folder / f"{stem}.native.engine"
                build = partial(models.build_model, path, other, settings.runtime, nms="native")
                if _made(steps, f"build {item}, native NMS", build, other):
                    native = other.name
        items.append(
            Item(
                title=item,
                trained=given,
                precision=precision,
                engine=output.name,
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


def _reference(
    path: Path, images: Sequence[Path], judge: Literal["onnxruntime", "openvino"], output: Path
) -> str:
    return models.reference(path, [read_image(p) for p in images], judge, output)


def _digest(values: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
