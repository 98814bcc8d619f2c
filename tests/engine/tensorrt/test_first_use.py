"""`Detector("model.onnx", device="cuda")`: an engine is built once, and kept. On doubles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_tensorrt import FakeTensorRT, engine_runner

from fake_builder import GPU, FakeBuilder
from recording_gpu import RecordingCuda
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.tensorrt import first_use, runner
from retinart.engine.tensorrt.engine_file import engine_json
from support import make_picture


class Machine(SimpleNamespace):
    """A machine with a GPU, on doubles.

    Attributes:
        gpu: the GPU.
        builds: how many engines were built.
        cache: the folder where engines are kept.
    """


@pytest.fixture
def machine(
    tensorrt: Callable[..., FakeBuilder], model_path: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Machine:  # fmt: skip
    fake = tensorrt()
    one = Machine(gpu=GPU, builds=0, cache=tmp_path / "cache" / "retinart" / "engines", fake=fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(first_use, "find_gpus", lambda: [one.gpu])
    monkeypatch.setattr(first_use, "installed", lambda runtime: True)
    monkeypatch.setattr(first_use, "load_tensorrt", lambda runtime: fake)
    make_builder = fake.Builder

    def count(logger: Any) -> Any:
        one.builds += 1
        return make_builder(logger)

    def load(path: Path, info: Any, thresholds: Any, options: Any) -> Any:
        cuda = RecordingCuda()
        return engine_runner(info, thresholds, FakeTensorRT(model_path, cuda), cuda)

    monkeypatch.setattr(fake, "Builder", count)
    monkeypatch.setattr(runner, "load_engine", load)
    return one


def test_an_engine_is_built_once(
    machine: Machine, model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = make_picture(1, 96, 128)
    with Detector(model_path, runtime="onnxruntime") as reference:
        want = reference(image)
    for builds in (1, 1):
        with Detector(model_path, device="cuda") as detector:
            found = detector(image)
            assert detector.runtime == "tensorrt" and machine.builds == builds
        assert len(found) == len(want) > 0 and (found.class_id == want.class_id).all()
    (engine,) = machine.cache.glob("*.engine")
    told = capsys.readouterr().err
    assert told.count("building an engine") == 1
    assert f"of {model_path} for NVIDIA Double with TensorRT" in told and str(engine) in told


@pytest.mark.parametrize("what", ["file", "GPU", "driver", "version"])
def test_what_an_engine_is_kept_for(
    what: str, machine: Machine, model_path: Path, tmp_path: Path
) -> None:
    """Another file, GPU, driver or version gets an engine of its own; the first one stays."""
    first = first_use.engine_for(model_path, 0)
    other = model_path
    if what == "file":
        other = tmp_path / "other.onnx"
        # one more field of the message, which every reader skips
        other.write_bytes(model_path.read_bytes() + b"\xfa\x7f\x01x")
    elif what == "GPU":
        machine.gpu = dataclasses.replace(GPU, name="another of 8.9")
    elif what == "driver":
        machine.gpu = dataclasses.replace(GPU, cuda="13.1")
    else:
        machine.fake.__version__ = "10.16.2"
    second = first_use.engine_for(other, 0)
    assert second != first and machine.builds == 2 and first.exists()


def test_a_damaged_engine_is_built_again(machine: Machine, model_path: Path) -> None:
    path = first_use.engine_for(model_path, 0)
    path.write_bytes(b"half a plan")
    assert first_use.engine_for(model_path, 0) == path and machine.builds == 2
    engine_json(path).unlink()
    assert first_use.engine_for(model_path, 0) == path and machine.builds == 3
    assert first_use.engine_for(model_path, 0) == path and machine.builds == 3


def test_the_engine_of_longest_ago_goes(
    machine: Machine, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = first_use.engine_for(model_path, 0)
    monkeypatch.setattr(first_use, "LARGEST_FOLDER", first.stat().st_size)
    machine.gpu = dataclasses.replace(GPU, name="another")
    second = first_use.engine_for(model_path, 0)
    assert sorted(machine.cache.iterdir()) == sorted([second, engine_json(second)])


def test_what_cannot_be(machine: Machine, model_path: Path, tmp_path: Path) -> None:
    """Each is told before anything is built."""
    with pytest.raises(BadInput, match="kept in the cache, and `cache` is off"):
        Detector(model_path, device="cuda", cache=False)
    with pytest.raises(BadInput, match="cannot be made looser"):
        Detector(model_path, device="cuda", iou=0.9)
    with pytest.raises(BadInput, match="only OpenVINO computes"):
        Detector(model_path, device="cuda", compute="bf16")
    with pytest.raises(BadInput, match=r"no GPU 3 that works\. Choose one of 0"):
        Detector(model_path, device="cuda:3")
    assert machine.builds == 0


def test_a_machine_without_a_gpu(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_use, "find_gpus", list)
    with pytest.raises(MissingDependency, match=r"cannot run on cuda.*Leave the device out"):
        Detector(model_path, device="cuda")
