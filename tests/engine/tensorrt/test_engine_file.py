"""An engine and its JSON: read back whole, and refused, saying why, where it does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_builder import GPU, FakeBuilder
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.errors import BadInput, MissingDependency, RetinartError
from retinart.engine.tensorrt.engine_file import (
    EngineInfo,
    check_gpu,
    check_plan,
    check_version,
    engine_json,
    read_engine_info,
)
from retinart.export.build import build_engine
from retinart.export.settings import BuildSettings


@pytest.fixture
def engine(
    tensorrt: Callable[..., FakeBuilder], model_path: Path, tmp_path: Path
) -> tuple[Path, EngineInfo]:
    tensorrt()
    path = tmp_path / "model.engine"
    return path, build_engine(model_path, path, BuildSettings()).info


def test_loading_refuses_what_does_not_fit(engine: tuple[Path, EngineInfo]) -> None:
    path, info = engine
    rebuild = "retinart build .*model.onnx -o .*model.engine"
    check_version(path, info, "10.16.1.11")
    with pytest.raises(BadInput, match=rf"built by .* 10\.16\.1\.11, .* 10\.17.*{rebuild}"):
        check_version(path, info, "10.17.0.1")
    compatible = dataclasses.replace(info, version_compatible=True)
    check_version(path, compatible, "10.17.0.1")
    check_version(path, compatible, "11.4.0.106")
    for other_version in ("10.15.0.1", "9.3.0", "12.0.0"):
        with pytest.raises(BadInput, match="on later ones, up to the next major one"):
            check_version(path, compatible, other_version)

    assert check_gpu(path, info, [GPU], 0) is GPU
    other = dataclasses.replace(GPU, name="NVIDIA Other", compute_capability="9.0")
    old = dataclasses.replace(GPU, name="NVIDIA Old", compute_capability="7.5")
    with pytest.raises(MissingDependency, match="needs an NVIDIA GPU, and there is none"):
        check_gpu(path, info, [], 0)
    with pytest.raises(BadInput, match=rf"8\.9 \(NVIDIA Double\), .* has 9\.0.*{rebuild}"):
        check_gpu(path, info, [other], 0)
    with pytest.raises(BadInput, match=r"there is no GPU 1 that works\. Choose one of 0"):
        check_gpu(path, info, [GPU], 1)
    second = dataclasses.replace(GPU, index=1)  # the driver's number, where GPU 0 does not answer
    assert check_gpu(path, info, [second], 1) is second
    any_gpu = dataclasses.replace(info, gpu=None, compute_capability=None)
    assert check_gpu(path, any_gpu, [other], 0) is other
    assert check_gpu(path, dataclasses.replace(info, hardware_compatible=True), [other], 0) is other
    with pytest.raises(BadInput, match=r"from Ampere on .* has 7\.5"):
        check_gpu(path, any_gpu, [old], 0)
    rtx = dataclasses.replace(any_gpu, runtime="tensorrt-rtx")
    assert check_gpu(path, rtx, [GPU], 0, ("8.0", "8.9")) is GPU
    with pytest.raises(
        BadInput, match=r"TensorRT-RTX runs on .* 8\.0, 8\.9, .* has 9\.0\. .* --runtime tensorrt`"
    ):
        check_gpu(path, rtx, [other], 0, ("8.0", "8.9"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "there is no engine at"),
        (lambda path: path.write_bytes(b"another"), "is not the engine that .* describes"),
        (lambda path: engine_json(path).unlink(), "has no model.engine.json beside it"),
        (lambda path: engine_json(path).write_text("{"), "is damaged"),
        (lambda path: engine_json(path).write_text('{"schema": 1}'), "is damaged"),
        (lambda path: engine_json(path).write_text("[]"), "has no schema number"),
        (lambda path: engine_json(path).write_bytes(b"\xff"), "cannot read"),
        (lambda path: engine_json(path).write_text('{"schema": 9}'), "has schema 9.*Upgrade"),
    ],
)
def test_damaged_files(
    damage: Callable[[Path], Any], message: str, engine: tuple[Path, EngineInfo]
) -> None:
    path, info = engine
    assert read_engine_info(path) == info and check_plan(path, info)
    damage(path)
    with pytest.raises(RetinartError, match=message):
        check_plan(path, read_engine_info(path))


def test_no_driver_is_no_gpu(tmp_path: Path) -> None:
    assert find_gpus(str(tmp_path / "none.so")) == []
    assert find_gpus("libc.so.6") == []  # a library without the driver's functions
    assert isinstance(find_gpus(), list) and np.all([g.name for g in find_gpus()])
