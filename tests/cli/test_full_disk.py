"""A disk that fills up, in each command that writes: the error names the file, and none is half."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retinart.engine.common.folders import own_folder
from retinart.engine.errors import BadInput
from support import files_below

Command = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The system refuses to let a file grow above a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _fails(done: subprocess.CompletedProcess[str], out: Path, *kept: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert files_below(out) == sorted(kept)


def test_export(retinart: Command, noisy_checkpoint: Path, tmp_path: Path) -> None:
    with _largest_file(50_000):
        done = retinart(
            "export", noisy_checkpoint, "-o", tmp_path / "out" / "a.onnx", "--height", "64",
            "--width", "64", "--skip-tensorrt",
        )  # fmt: skip
    _fails(done, tmp_path)


def test_calibrate_and_convert(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    images = ("--images", small_scenes, "--num", "2")
    with _largest_file(50_000):
        done = retinart("calibrate", model_path, *images, "-o", tmp_path / "a.int8.onnx")
        _fails(done, tmp_path)
        done = retinart("convert", model_path, "-o", tmp_path / "a.fp16.onnx")
        _fails(done, tmp_path)
        assert f"cannot write {tmp_path / 'a.fp16.onnx'}: File too large" in done.stderr


def test_convert_to_openvino(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    """OpenVINO's own error was one of those that should not happen, and does not say why."""
    with _largest_file(50_000):
        done = retinart("convert", model_path, "--to", "openvino", "-o", tmp_path / "a.xml")
    assert done.returncode == 2 and files_below(tmp_path) == [], done.stderr
    assert f"could not write {tmp_path / 'a.xml'}" in done.stderr


def test_the_lock_of_a_folder(tmp_path: Path) -> None:
    """The file that locks a folder stayed when its text found no room."""
    full = pytest.raises(BadInput, match="File too large")
    with _largest_file(0), full, own_folder(tmp_path / "out"):
        pass
    assert files_below(tmp_path) == []


def test_make_scenes(retinart: Command, tmp_path: Path) -> None:
    with _largest_file(3_000):
        done = retinart("make-scenes", tmp_path / "scenes", "--num", "2")
    _fails(done, tmp_path)


def test_train(retinart: Command, small_scenes: Path, tmp_path: Path) -> None:
    """results.csv told of an epoch that no checkpoint held."""
    data = ("--images", small_scenes, "--annotations", small_scenes.parent / "instances.json")
    with _largest_file(100_000):
        done = retinart(
            "train", *data, "--out", tmp_path, "--name", "run", "--epochs", "1",
            "--height", "64", "--width", "64", "--batch", "2", "--workers", "0",
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "last.pt: File too large. Make room on its disk" in done.stderr
    left = [name for name in files_below(tmp_path) if "tfevents" not in name]
    assert left == ["run/config.json", "run/environment.json"]
