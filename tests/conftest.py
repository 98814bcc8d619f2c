"""Shared pieces of the tests: small models, and the data that lies outside of the repo."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from fake_tensorrt import Made

from fake_builder import GPU, FakeBuilder
from golden_forms import FORMS
from retinart.calib.calibrate import calibrate
from retinart.calib.settings import CalibrationSettings
from retinart.cli import main
from retinart.engine.media.images import Image
from retinart.export import build, nms_plugin
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings
from retinart.train.data.scenes import make_scenes
from retinart.train.data.settings import SceneSettings
from retinart.train.model.checkpoint import load_checkpoint, save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from support import Once, export_unchecked, make_picture, write_images, write_video

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


class OneThread(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session of ONNX Runtime, by default with one thread: several wait for each other."""

    def __init__(self, model: Any, sess_options: Any = None, **more: Any) -> None:
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.intra_op_num_threads or 1
        super().__init__(model, options, **more)


def pytest_configure(config: pytest.Config) -> None:
    """Processes that a test starts have one thread of PyTorch, as this one: see `_one_thread`.

    Detectors remember their self-tests and compiled models outside of the user's cache. All
    workers share that folder: to load a compiled model takes a quarter of the time to compile it.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process compiles the sources again
    onnxruntime.InferenceSession = OneThread
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.mkdtemp(prefix="retinart-cache-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))  # up to 2 GB
        os.environ["XDG_CACHE_HOME"] = folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the longest tests come first, so that no worker is left alone with one."""
    longest = ("test_golden.py", "test_program.py", "test_curve.py", "test_sensitivity.py")
    items.sort(key=lambda item: item.path.name not in longest)


@pytest.fixture(autouse=True)
def _no_self_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector leaves its self-test out, which takes half a second for each new file.

    The tests of the self-test and those of the command line's processes have it.
    """
    if "self_test" not in request.path.parts:
        monkeypatch.setattr("retinart.engine.detector.check_once", lambda *given, **more: "")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """PyTorch's threads wait for each other, a hundred times as long where a core is taken."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder of files once for all workers: the first one fills it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    folder.mkdir(exist_ok=True)

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        done, part = folder / name, folder / f"{name}.part"
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(part, ignore_errors=True)  # left by a worker that failed
                part.mkdir()
                fill(part)
                part.rename(done)
        return done

    return make


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
def noisy_checkpoint(once: Once) -> Path:
    """A `tiny` of three classes with random weights whose outputs vary enough to detect things."""

    def make(folder: Path) -> None:
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
        path = folder / "noisy.pt"
        save_checkpoint(path, model=model, variant=variant, classes=CLASSES, training={})

    return once("checkpoint", make) / "noisy.pt"


def _export(once: Once, name: str, checkpoint: Path, settings: ExportSettings) -> Path:
    def make(folder: Path) -> None:
        export_checkpoint(checkpoint, folder / f"{name}.onnx", settings)

    return once(name, make) / f"{name}.onnx"


@pytest.fixture(scope="session")
def model_path(noisy_checkpoint: Path, once: Once) -> Path:
    """That checkpoint, exported with a fixed input of 96x128."""
    settings = ExportSettings(height=96, width=128, tensorrt=False)
    return _export(once, "model", noisy_checkpoint, settings)


@pytest.fixture(scope="session")
def dynamic_model_path(noisy_checkpoint: Path, once: Once) -> Path:
    """The same with a dynamic input, shorter side 96, and a low threshold."""
    settings = ExportSettings(imgsz=96, dynamic=True, conf=0.02, tensorrt=False)
    return _export(once, "dynamic", noisy_checkpoint, settings)


@pytest.fixture(scope="session")
def changed_path(
    noisy_checkpoint: Path, model_path: Path, dynamic_model_path: Path, once: Once
) -> Callable[..., Path]:
    """`model_path` or `dynamic_model_path` with other fields of the variant, or less classes."""

    def get(*, dynamic: bool = False, drop_classes: str | None = None, **fields: Any) -> Path:
        like = dynamic_model_path if dynamic else model_path
        model, variant, classes = load_checkpoint(noisy_checkpoint)
        changes = {k: v for k, v in fields.items() if getattr(variant, k) != v}
        if not changes and drop_classes is None:
            return like

        def make(folder: Path) -> None:
            path, changed = folder / "model.pt", dataclasses.replace(variant, **changes)
            save_checkpoint(path, model=model, variant=changed, classes=classes, training={})
            settings = ExportSettings(height=96, width=128, tensorrt=False)
            if dynamic:
                settings = ExportSettings(imgsz=96, dynamic=True, conf=0.02, tensorrt=False)
            export_unchecked(path, folder / "model.onnx", settings)

        return (
            once("-".join([like.stem, *changes, *map(str, changes.values())]), make) / "model.onnx"
        )

    return get


@pytest.fixture(scope="session")
def tiny_path(once: Once) -> Path:
    """The trained model that is shipped, with a fixed input of 256x320."""
    settings = ExportSettings(height=256, width=320, tensorrt=False)
    return _export(once, "tiny", ROOT / "train" / "assets" / "tiny.pt", settings)


@pytest.fixture(scope="session")
def public_checkpoint(golden: ModuleType, once: Once) -> Callable[[str], Path]:
    """golden.py's deterministic weights in one of FORMS."""

    def get(name: str) -> Path:
        variant, suffix, wrap = FORMS[name]

        def make(folder: Path) -> None:
            state = {key: torch.from_numpy(v) for key, v in golden.arrays(variant).items()}
            if suffix == ".pkl":
                (folder / "model.pkl").write_bytes(pickle.dumps(wrap(state)))
            else:
                torch.save(wrap(state), folder / "model.pth")

        return once(f"{name} checkpoint", make) / f"model{suffix}"

    return get


@pytest.fixture(scope="session")
def public_model(
    public_checkpoint: Callable[[str], Path], shared: Callable[..., Path], once: Once
) -> Callable[[str], Path]:
    """What `retinart export` makes of one of FORMS, at the size of the public model's outputs.

    Of one form by the command. The others are not compared with PyTorch, as all are compared with
    the outputs of their own projects.
    """

    def get(name: str) -> Path:
        def make(folder: Path) -> None:
            with np.load(shared("golden", FORMS[name].variant, "network_input.npz")) as file:
                height, width = file["input"].shape[2:]
            checkpoint, path = public_checkpoint(name), folder / "model.onnx"
            if name == "torchvision":
                size = ["--height", str(height), "--width", str(width), "--skip-tensorrt"]
                assert main(["export", str(checkpoint), "-o", str(path), *size]) == 0
            else:
                settings = ExportSettings(height=height, width=width, tensorrt=False)
                export_unchecked(checkpoint, path, settings, self_test=False)

        return once(f"{name} model", make) / "model.onnx"

    return get


@pytest.fixture(scope="session")
def scenes(once: Once) -> Path:
    """Sixteen scenes like those that `tiny` was trained on: images/ and instances.json."""
    return once("scenes", lambda folder: make_scenes(folder / "scenes", num=16, seed=4)) / "scenes"


@pytest.fixture(scope="session")
def small_scenes(once: Once) -> Path:
    """A folder of twelve scenes of 96x128."""

    def make(folder: Path) -> None:
        settings = SceneSettings(size=(96, 128))
        make_scenes(folder / "scenes", num=12, seed=4, settings=settings)

    return once("small_scenes", make) / "scenes" / "images"


@pytest.fixture(scope="session")
def tiny_scenes(once: Once) -> Path:
    """Four scenes of 64x64, for a step of training: images/ and instances.json."""

    def make(folder: Path) -> None:
        settings = SceneSettings(size=(64, 64), max_objects=2)
        make_scenes(folder / "scenes", num=4, seed=1, settings=settings)

    return once("tiny_scenes", make) / "scenes"


@pytest.fixture(scope="session")
def int8_path(model_path: Path, small_scenes: Path, once: Once) -> Path:
    """`model_path` in INT8, with its record beside it."""
    settings = CalibrationSettings(images=str(small_scenes), num=4)
    return once("int8", lambda f: calibrate(model_path, f / "model.int8.onnx", settings)) / (
        "model.int8.onnx"
    )


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No export is compared with PyTorch, no calibration measures noise or writes a self-test.

    That takes half of their time on a small model. The models of this file have all of it.
    """
    bare = lambda model, info: dataclasses.replace(info, probe=None)  # noqa: E731
    monkeypatch.setattr("retinart.export.export.check_parity", lambda *given: None)
    monkeypatch.setattr("retinart.calib.calibrate.with_self_test", bare)
    monkeypatch.setattr("retinart.calib.calibration.signal_to_noise", lambda *given: {})


@pytest.fixture
def picture() -> Image:
    """(120, 180, 3) uint8 BGR with some structure."""
    return make_picture(5, 120, 180)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with 0.png, 1.png and 2.png."""
    return write_images(tmp_path / "images", "0.png", "1.png", "2.png")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """clip.avi, 10 frames of 96x128 at 10 a second."""
    return write_video(tmp_path / "clip.avi", frames=10)


@pytest.fixture
def retinart(capfd: pytest.CaptureFixture[str]) -> Callable[..., CompletedProcess[str]]:
    """Runs `retinart ...` in this process."""

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
        register = lambda trt: fake.told.update(registered=fake.told.get("registered", 0) + 1)  # noqa: E731
        monkeypatch.setattr(nms_plugin, "register", register)
        return fake

    return put


@pytest.fixture
def made(model_path: Path) -> Iterator[Made]:
    """An engine runner on doubles of CUDA and TensorRT, without a GPU."""
    one = Made(model_path)
    yield one
    one.runner.close()


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine; skips where there is none, or no driver."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium: install it, or set CHROMIUM to its path")
    with sync_api.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield one
        one.close()
