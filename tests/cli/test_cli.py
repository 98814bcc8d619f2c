"""The command line in general: usage, files that are not models, inspect, doctor, processes."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import onnx
import pytest

from retinart.cli import main
from retinart.engine import doctor
from retinart.engine.errors import BadInput, pip_command
from retinart.engine.job import outputs
from retinart.engine.model.info import METADATA_KEY, looks_like_checkpoint
from retinart.engine.runtime.openvino_runner import OpenVINORunner
from support import files_below

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An ONNX file that retinart did not write."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    path = tmp_path / "foreign.onnx"
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return path


def _process(*arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "retinart", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def test_a_full_disk_is_said_in_a_line(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr(outputs, "write_picture", full)
    ran = retinart("detect", model_path, images, "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.endswith(
        "retinart: cannot read or write x.png: No space left on device. "
        "Check the path, its permissions and the space on its disk.\n"
    )
    assert files_below(tmp_path / "out") == []


def test_a_defect_of_ours_is_no_traceback_without_debug(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any, **more: Any) -> None:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr(OpenVINORunner, "prepare", broken)
    arguments = ["detect", str(model_path), str(images), "--out", str(tmp_path / "out")]
    ran = retinart(*arguments)
    assert ran.returncode == 70
    assert ran.stderr.endswith(
        "retinart: this should not have happened: ZeroDivisionError: seven\n"
        "Run it again with --debug and report what it prints.\n"
    )
    assert files_below(tmp_path / "out") == []
    with pytest.raises(ZeroDivisionError, match="seven"):
        main([*arguments, "--debug"])


@pytest.mark.parametrize("command", ["detect", "eval", "inspect"])
def test_an_onnx_of_somebody_else(
    retinart: Command, foreign: Path, images: Path, tmp_path: Path, command: str
) -> None:
    more: dict[str, list[str | Path]] = {
        "detect": [images, "--out", tmp_path / "out"],
        "eval": ["--images", images, "--annotations", tmp_path / "none.json"],
        "inspect": ["--json"],
    }
    (tmp_path / "none.json").touch()
    ran = retinart(command, foreign, *more[command])
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"retinart: {foreign} carries no metadata of retinart: its input, classes and "
        "thresholds are unknown, and guessing them would give wrong detections silently. "
        "Make the file again with `retinart export CHECKPOINT -o model.onnx`.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["detect", "inspect"])
def test_a_missing_and_a_truncated_model(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, command: str
) -> None:
    more: list[str | Path] = [images, "--out", tmp_path / "out"] if command == "detect" else []
    ran = retinart(command, tmp_path / "none.onnx", *more)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        ran.stderr == f"retinart: there is no model at {tmp_path / 'none.onnx'}. Check the path.\n"
    )
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(model_path.read_bytes()[:-500])
    ran = retinart(command, cut, *more)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"retinart: {cut} is not a readable ONNX file: it is truncated" in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_picture_or_a_video_in_place_of_a_model(
    retinart: Command, images: Path, tmp_path: Path
) -> None:
    """The message told of bytes of protobuf."""
    shutil.copy(images / "0.png", picture := tmp_path / "picture.bin")
    (video := tmp_path / "clip.mp4").write_bytes(b"no ONNX")
    for path, kind in ((picture, "a picture"), (video, "a video")):
        ran = retinart("detect", path, images, "--out", tmp_path / "out")
        assert (ran.returncode, ran.stderr) == (
            2,
            f"retinart: {path} is {kind}, not a model file. Give a model first: an ONNX file of "
            "retinart, or an engine.\n",
        )


@pytest.mark.parametrize(
    ("command", "does", "made"),
    [
        (
            ("calibrate", "--images", "."),
            "retinart.calib.calibrate.calibrate",
            "cells.v2.int8.onnx",
        ),
        (("convert",), "retinart.calib.convert.convert", "cells.v2.fp16.onnx"),
        (
            ("convert", "--to", "openvino"),
            "retinart.export.openvino_ir.write_ir",
            "cells.v2.xml",
        ),
        (("build",), "retinart.export.build.build_engine", "cells.v2.engine"),
    ],
)
def test_a_file_that_is_made_of_a_model_has_its_name(
    retinart: Command,
    command: tuple[str, ...],
    does: str,
    made: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`convert bccd.onnx` wrote model.fp16.onnx."""

    def told(model: Path, output: Path, *_: Any, **__: Any) -> None:
        raise BadInput(f"{model} to {output}")

    monkeypatch.setattr(does, told)
    ran = retinart(*command, "models/cells.v2.onnx")
    assert ran.stderr == f"retinart: models/cells.v2.onnx to {made}.\n"


def test_a_checkpoint_in_place_of_a_model(
    retinart: Command, noisy_checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    """Seen: "its bytes are not a protobuf message". `inspect` describes it."""
    ran = retinart("detect", noisy_checkpoint, images, "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"retinart: {noisy_checkpoint} is a checkpoint, not a model file. Make one of it with "
        f"`retinart export {noisy_checkpoint} -o model.onnx`.\n"
    )
    ran = retinart("inspect", noisy_checkpoint)
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = [line.split(None, 1) for line in ran.stdout.splitlines()]
    assert ran.stdout.splitlines()[0].split() == ["checkpoint", "of", "retinart"]
    assert ["bn_eps", "1e-05"] in rows  # what `export --set` takes
    ran = retinart("inspect", noisy_checkpoint, "--json")
    assert json.loads(ran.stdout)["variant"]["source"] == "retinart"


def test_a_checkpoint_is_known_whatever_its_name(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path
) -> None:
    """A `.ckpt` of Lightning was "not a readable ONNX file"."""
    for name in ("last.ckpt", "weights"):
        shutil.copy(noisy_checkpoint, path := tmp_path / name)
        ran = retinart("inspect", path)
        assert ran.stdout.splitlines()[0].split() == ["checkpoint", "of", "retinart"], ran.stderr
        ran = retinart("check", path)
        assert f"{path} is a checkpoint, not a model file. Make one of it" in ran.stderr
    (pickled := tmp_path / "arrays").write_bytes(pickle.dumps({}))
    assert looks_like_checkpoint(pickled) and not looks_like_checkpoint(tmp_path)
    (other := tmp_path / "words.docx").write_bytes(b"PK\x03\x04" + bytes(600))
    assert not looks_like_checkpoint(other)


def test_an_address_of_ray_that_is_none_is_named_once(retinart: Command, images: Path) -> None:
    ran = retinart("detect", "model.onnx", images, "--ray", "::1:1")
    assert ran.returncode == 2 and ran.stderr.count("::1:1") == 1
    assert "is not a head node's address: give one such as 10.0.0.1:6379" in ran.stderr


def test_inspect(retinart: Command, model_path: Path, dynamic_model_path: Path) -> None:
    ran = retinart("inspect", model_path, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    said = json.loads(ran.stdout)
    assert list(said)[:4] == ["file", "bytes", "sha256", "schema"]
    assert said["bytes"] == model_path.stat().st_size and len(said["sha256"]) == 64
    assert said["classes"] == ["disc", "square", "ring"] and said["precision"] == "fp32"
    assert said["resize"]["canvas"] == [96, 128]
    assert said["variant"]["backbone"] == "tiny"
    assert said["thresholds"]["detections_per_img"] == 100
    assert len(said["provenance"]["checkpoint_sha256"]) == 64
    for path, size in ((model_path, "96, 128"), (dynamic_model_path, "height 32 to 160, width 32")):
        ran = retinart("inspect", path)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert f"uint8 (batch, {size}" in ran.stdout and "3: disc, square, ring" in ran.stdout


def test_doctor(retinart: Command) -> None:
    ran = retinart("doctor")
    assert (ran.returncode, ran.stderr) == (0, "") and ran.stdout.startswith("Python 3.")
    assert ran.stdout.splitlines()[-1].startswith("Works here: detect (on the CPU in FP32")
    ran = retinart("doctor", "--json")
    parts = {p["name"]: p for p in json.loads(ran.stdout)}
    assert parts["openvino"]["version"] and not parts["openvino"]["command"]
    for part in parts.values():
        assert list(part) == ["name", "version", "purpose", "command"]
        assert bool(part["version"]) != bool(part["command"])


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (
            ("openvino",),
            "Works here: detect (on the CPU in FP32 and INT8). TensorRT engines "
            "need a machine with an NVIDIA GPU. For export, "
            f"calibrate, eval, train: {pip_command('export,eval,train')}",
        ),
        (
            ("onnxruntime-gpu", "onnx", "torch", "pycocotools", "NVIDIA GPU", "tensorrt"),
            "Works here: detect (on the CPU in FP32 and INT8), export, eval, train. For "
            "calibrate, TensorRT engines: "
            f"{pip_command('export,tensorrt')}",
        ),
        (
            ("openvino", "onnxruntime", "onnx", "torch", "pycocotools", "bf16"),
            "Works here: detect (on the CPU in FP32, INT8 and bf16), export, calibrate, "
            "eval, train. TensorRT engines need a machine "
            "with an NVIDIA GPU.",
        ),
        (
            ("NVIDIA GPU", "tensorrt-rtx-cu13", "cuda-bindings"),
            "Works here: TensorRT engines. For detect, export, calibrate, eval, train: "
            f"{pip_command('export,eval,train')}",
        ),
    ],
)
def test_doctor_ends_with_a_verdict(there: tuple[str, ...], said: str) -> None:
    parts = [doctor.Part(name=name, version="1", purpose="", command="") for name in there]
    parts.append(doctor.Part(name="trackers", version=None, purpose="", command="x"))
    assert doctor.verdict(parts) == said


GPU = ("tensorrt", "tensorrt-rtx")  # extras that doctor advises for their own packages alone


def test_doctor_knows_every_package_and_an_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """doctor knows pyproject.toml's packages, except those for work on retinart itself."""

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    advised = {p.name: re.findall(r"\.\[(.*)\]", p.command) for p in doctor.examine()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for extra in ("demo", "dev", "docs", "examples"):
        extras.pop(extra)
    brings = {
        extra: {re.split(r"[<>=\[]", package)[0] for package in packages}
        for extra, packages in extras.items()
    }
    for package in set().union(*brings.values()):
        assert package in advised, f"doctor does not look for {package}"
        (extra,) = advised[package]
        assert package in brings[extra], f"retinart[{extra}] does not bring {package}"
        others = [len(b) for name, b in brings.items() if package in b and name not in GPU]
        fewest = min(others, default=len(brings[extra]))
        assert len(brings[extra]) == fewest, f"another extra brings less with {package}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["detect"],
        ["detect", "model.onnx"],
        ["detect", "model.onnx", "a.jpg", "--colour"],
        ["detect", "model.onnx", "a.jpg", "--conf", "high"],
        ["detect", "model.onnx", "a.jpg", "--runtime", "tflite"],
        ["eval", "model.onnx"],
        ["export"],
        ["inspect"],
    ],
)
def test_usage_errors(retinart: Command, arguments: list[str]) -> None:
    ran = retinart(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: retinart") and "error: " in ran.stderr


def test_python_m_retinart(model_path: Path, images: Path, tmp_path: Path) -> None:
    ran = _process("detect", model_path, "images", "--out", "out", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["out/detections.jsonl", "out", "out/summary.json"]
    pictures = ["0.png", "1.png", "2.png"]
    assert files_below(tmp_path / "out") == [*pictures, "detections.jsonl", "summary.json"]
    ran = _process("inspect", tmp_path / "none.onnx")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("retinart: there is no model at ")
    ran = _process("inspect", tmp_path / "none.onnx", "--debug")
    assert "Traceback" in ran.stderr and "BadInput" in ran.stderr


def test_a_path_that_is_not_utf8_is_printed_as_it_is(
    model_path: Path, images: Path, tmp_path: Path
) -> None:
    out = os.fsencode(tmp_path) + b"/caf\xe9"
    command = [sys.executable, "-m", "retinart", "detect", str(model_path), str(images)]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "0"}
    ran = subprocess.run([*command, "--out", out], capture_output=True, timeout=120, env=env)
    assert ran.returncode == 0, ran.stderr
    names = [out + b"/detections.jsonl", out, out + b"/summary.json"]
    assert ran.stdout.splitlines() == names


def test_a_reader_that_goes_away(model_path: Path) -> None:
    """`retinart inspect MODEL --json | head -1` ends quietly."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "retinart", "inspect", str(model_path), "--json"]
    # stdout is buffered, as for users: the error comes at the last flush
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    ran = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, env=env
    )
    os.close(write)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_metadata_that_is_damaged(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    model = onnx.load(model_path)
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = entry.value[:-20]
    path = tmp_path / "damaged.onnx"
    path.write_bytes(model.SerializeToString())
    ran = retinart("inspect", path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"retinart: the metadata of {path} is damaged: " in ran.stderr
