"""Shared pieces of the tests: small models, and the data that lies outside of the repo."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fake_tensorrt import Made

from fake_builder import GPU, FakeBuilder
from retinart.calib.calibrate import CalibrationSettings, calibrate
from retinart.cli import main
from retinart.engine.media.images import Image
from retinart.export import build
from retinart.export.export import ExportSettings, export_checkpoint
from retinart.train.data.scenes import SceneSettings, make_scenes
from retinart.train.model.checkpoint import save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("RETINART_DATA", ROOT.parent / "shared"))
CLASSES = ("disc", "square", "ring")


@pytest.fixture(scope="session")
def shared() -> Callable[..., Path]:
    """A path below the shared data; skips the test, saying why, where that is absent."""

    def find(*parts: str) -> Path:
        path = SHARED.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"{path} is absent: set RETINART_DATA to the folder that holds {parts[0]}/")
        return path

    return find


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Two that wait for each other are a hundred times as slow where a core is taken."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden(shared: Callable[..., Path]) -> ModuleType:
    """golden.py of the shared data, which makes the public models' weights."""
    folder = str(shared("golden"))
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("golden")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="session")
def noisy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tiny` of three classes with random weights whose outputs vary enough to detect things."""
    torch.manual_seed(3)
    variant = preset("tiny", len(CLASSES))
    model = build_retinanet(variant, prior=0.1).eval()
    with torch.no_grad():
        for head in (model.cls_head, model.box_head):
            for conv in head.convs:
                assert isinstance(conv, torch.nn.Conv2d)
                torch.nn.init.kaiming_normal_(conv.weight)
        outputs = model(torch.randn(1, 3, 96, 128))
        model.cls_head.output.weight.mul_(1.5 / outputs.logits[0].std())
        model.box_head.output.weight.mul_(0.3 / outputs.deltas[0].std())
    path = tmp_path_factory.mktemp("checkpoint") / "noisy.pt"
    save_checkpoint(path, model=model, variant=variant, classes=CLASSES, training={})
    return path


@pytest.fixture(scope="session")
def model_path(noisy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That checkpoint, exported with a fixed input of 96x128."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    settings = ExportSettings(height=96, width=128, tensorrt=False)
    export_checkpoint(noisy_checkpoint, path, settings)
    return path


@pytest.fixture(scope="session")
def dynamic_model_path(noisy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a dynamic input, shorter side 96, and a low threshold."""
    path = tmp_path_factory.mktemp("model") / "dynamic.onnx"
    settings = ExportSettings(imgsz=96, dynamic=True, conf=0.02, tensorrt=False)
    export_checkpoint(noisy_checkpoint, path, settings)
    return path


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model that is shipped, with a fixed input of 256x320."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    settings = ExportSettings(height=256, width=320, tensorrt=False)
    export_checkpoint(ROOT / "train" / "assets" / "tiny.pt", path, settings)
    return path


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen scenes like those that `tiny` was trained on: images/ and instances.json."""
    out = tmp_path_factory.mktemp("scenes") / "scenes"
    make_scenes(out, num=16, seed=4)
    return out


@pytest.fixture(scope="session")
def small_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve scenes of 96x128."""
    out = tmp_path_factory.mktemp("scenes") / "scenes"
    make_scenes(out, num=12, seed=4, settings=SceneSettings(size=(96, 128)))
    return out / "images"


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes of 64x64, for a step of training: images/ and instances.json."""
    out = tmp_path_factory.mktemp("scenes") / "scenes"
    make_scenes(out, num=4, seed=1, settings=SceneSettings(size=(64, 64), max_objects=2))
    return out


@pytest.fixture(scope="session")
def int8_path(
    model_path: Path, small_scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`model_path` in INT8, with its record beside it."""
    path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    calibrate(model_path, path, CalibrationSettings(images=str(small_scenes), num=4))
    return path


@pytest.fixture
def picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(120, 180, 3) uint8 BGR with some structure."""
    rng = np.random.default_rng(5)
    image = rng.integers(0, 255, (12, 18, 3), np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    return image


def blocks_of_colour(seed: int) -> Image:
    """(96, 128, 3) uint8 BGR, something for the small models to respond to."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, (128, 96), interpolation=cv2.INTER_NEAREST), np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with 0.png, 1.png and 2.png."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(3):
        assert cv2.imwrite(str(folder / f"{seed}.png"), blocks_of_colour(seed))
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """clip.avi, 10 frames of 96x128 at 10 a second."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 96))
    for seed in range(10):
        writer.write(blocks_of_colour(seed))
    writer.release()
    return path


@pytest.fixture
def retinart(capfd: pytest.CaptureFixture[str]) -> Callable[..., CompletedProcess[str]]:
    """Runs `retinart ...` in this process, whatever it is given."""

    def run(*arguments: str | Path) -> CompletedProcess[str]:
        capfd.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:  # how argparse ends
            code = int(str(stop.code))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return CompletedProcess(args=arguments, returncode=code, stdout=out, stderr=err)

    return run


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeBuilder]:
    """Puts a double in TensorRT's place, on a machine with a GPU."""

    def put(*args: Any, **kwargs: Any) -> FakeBuilder:
        fake = FakeBuilder(*args, **kwargs)
        monkeypatch.setattr(build, "find_gpus", lambda: [GPU])
        monkeypatch.setattr(build, "installed", lambda runtime: True)
        monkeypatch.setattr(build, "load_tensorrt", lambda runtime: fake)
        return fake

    return put


@pytest.fixture
def made(model_path: Path) -> Iterator[Made]:
    """An engine runner on doubles of CUDA and TensorRT, which are no GPU."""
    one = Made(model_path)
    yield one
    one.runner.close()
