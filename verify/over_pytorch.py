"""Checks of the runner with PyTorch in TensorRT's place: `tiny` and generated scenes, no files."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retinart import train
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.cuda.open_gpu import Binding, open_gpu
from retinart.engine.model.info import ModelInfo, Thresholds
from retinart.engine.model.resize_rule import ResizeRule
from retinart.engine.tensorrt import runner
from retinart.engine.tensorrt.engine_file import EngineInfo, engine_json
from retinart.verify import checks
from retinart.verify.bundle import save_detections
from retinart.verify.checks import Subject
from retinart.verify.judge import Figures

SIZES = ((256, 320), (320, 256), (256, 256))  # of the scenes; each has a shape of its own
CHECKS: dict[str, Callable[[Subject], Figures]] = {
    "detections": checks.compare,
    "GPU resize": checks.gpu_resize,
    "8 threads": checks.threads,
    "latency": checks.latency,
    "throughput": checks.throughput,
    "streams": checks.streams,
    "memory": checks.endurance,
}


def over_pytorch(
    check: Callable[[Subject], Figures], binding: Binding, effort: dict[str, Any]
) -> Figures:
    """What a check of an engine finds, through a binding, where PyTorch is the engine.

    Args:
        effort: fields of `Subject`.
    """
    with tempfile.TemporaryDirectory() as folder, _in_place(binding):
        return check(_subject(Path(folder), effort))


@contextmanager
def _in_place(binding: Binding) -> Iterator[None]:
    """Have the runner load PyTorch in TensorRT's place, and open the GPU through a binding."""
    import torch

    from retinart.verify.torch_tensorrt import TorchTensorRT

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module: Any = runner
    real = module.load_tensorrt, module.open_gpu
    info = _info()
    trt = TorchTensorRT(info.model, info.profile[2], device)
    module.load_tensorrt, module.open_gpu = lambda _: trt, lambda index: open_gpu(index, binding)
    try:
        yield
    finally:
        module.load_tensorrt, module.open_gpu = real


def _plan() -> bytes:
    return (Path(train.__path__[0]) / "assets" / "tiny.pt").read_bytes()


def _info() -> EngineInfo:
    from retinart.train.model.checkpoint import load_checkpoint
    from retinart.verify.torch_tensorrt import VERSION

    _, variant, classes = load_checkpoint(Path(train.__path__[0]) / "assets" / "tiny.pt")
    model = ModelInfo(
        name="tiny",
        classes=tuple(classes),
        precision="fp32",
        variant=variant,
        resize=ResizeRule(
            short_side=256, max_size=320, canvas=None, pad_multiple=32,
            pad_value=variant.pad_value,
        ),
        min_size=(256, 256),
        max_size=(320, 320),
        thresholds=Thresholds(),
    )  # fmt: skip
    return EngineInfo(
        model=model,
        runtime="tensorrt",
        version=VERSION,
        gpu=None,
        compute_capability=find_gpus()[0].compute_capability,
        profile=((1, 256, 256, 3), (1, 256, 320, 3), (8, 320, 320, 3)),
        nms="plugin",
        version_compatible=False,
        hardware_compatible=False,
        build_seconds=0.0,
        plan_sha256=hashlib.sha256(_plan()).hexdigest(),
        onnx_sha256="",
        rebuild="none",
    )


def _subject(folder: Path, effort: dict[str, Any]) -> Subject:
    """The engine, six scenes, and what PyTorch finds in them on the CPU, by another NMS."""
    from retinart.train.data.scenes import render_scene
    from retinart.train.data.settings import SceneSettings
    from retinart.train.model.checkpoint import load_checkpoint
    from retinart.train.model.predict import predict

    engine, info = folder / "tiny.engine", _info()
    engine.write_bytes(_plan())
    engine_json(engine).write_text(info.to_json(), encoding="utf-8")
    model, variant, _ = load_checkpoint(Path(train.__path__[0]) / "assets" / "tiny.pt")
    rng, images, found = np.random.default_rng(1), list[Path](), []
    for i in range(6):
        image, _ = render_scene(rng, SceneSettings(size=SIZES[i % len(SIZES)]))
        images.append(folder / f"{i}.png")
        cv2.imwrite(str(images[-1]), image)
        frames, (resized,) = info.model.resize.apply([image])
        (one,) = predict(model.eval(), variant, frames, info.model.thresholds)
        found.append(resized.detections_to_source(one))
    save_detections(folder / "found.npz", found)
    return Subject(
        engine=engine,
        images=tuple(images),
        nms="plugin",
        references={"onnxruntime": folder / "found.npz"},
        **(effort | {"batches": (1, 8)}),
    )
