"""What a command imports before it does its work: the less, the sooner it answers."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import retinart
from retinart import engine
from retinart.cli import COMMANDS
from support import run_python, write_images

HEAVY = ("cv2", "matplotlib", "numpy", "onnx", "openvino", "pycocotools", "torch")

RUN = """
import contextlib, io, sys
from retinart.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print(*sys.modules)
"""


def loaded(*arguments: str | Path) -> set[str]:
    """Those of HEAVY that a process has imported after a command."""
    done = run_python("-c", RUN, *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return set(HEAVY) & set(done.stdout.split())


@pytest.mark.parametrize("name", ["", "data check", *COMMANDS])
def test_help_loads_no_library(name: str) -> None:
    assert loaded(*name.split(), "--help") == set()


@pytest.mark.parametrize("arguments", [["--version"], ["completion", "bash"]])
def test_commands_without_a_model_load_no_library(arguments: list[str]) -> None:
    assert loaded(*arguments) == set()


def test_the_version_is_looked_up_when_it_is_asked_for() -> None:
    code = "import sys, retinart; print('importlib.metadata' in sys.modules, retinart.__version__)"
    done = run_python("-c", code)
    assert done.stdout.split() == ["False", metadata.version("retinart")], done.stderr


def test_inspect_needs_no_library(model_path: Path) -> None:
    assert loaded("inspect", model_path) == set()
    assert loaded("inspect", model_path, "--json") == set()


def test_detect_on_a_picture_loads_what_it_needs(model_path: Path, tmp_path: Path) -> None:
    """FFmpeg is for videos; the rest takes as long to import as it takes to detect."""
    picture = write_images(tmp_path / "pictures", "a.png")
    done = run_python("-c", RUN, "detect", *map(str, (model_path, picture, "--out", tmp_path)))
    assert done.returncode == 0, done.stderr
    unneeded = {
        "av", "http.server", "openvino.tools.ovc", "retinart.engine.evaluation.coco",
        "retinart.engine.runtime.onnxruntime_runner", "retinart.engine.tensorrt.runner", "yaml",
    }  # fmt: skip
    assert unneeded & set(done.stdout.split()) == set()


def test_doctor_loads_what_it_asks() -> None:
    """It asks OpenVINO what this CPU can do; it only looks for the packages of the extras."""
    assert loaded("doctor") <= {"openvino", "numpy"}


READ = """
import sys
from pathlib import Path
from retinart.export.checkpoint import load_any
load_any(Path(sys.argv[1]))
print(*sys.modules)
"""


def test_a_checkpoint_is_read_without_the_compiler_of_pytorch(noisy_checkpoint: Path) -> None:
    """To import it takes seconds, and `export` does not need it."""
    done = run_python("-c", READ, str(noisy_checkpoint))
    assert done.returncode == 0, done.stderr
    modules = done.stdout.split()
    assert "torch" in modules and "torch._dynamo" not in modules


@pytest.mark.parametrize("module", [retinart, engine])
def test_public_names_are_there_and_listed(module: object) -> None:
    names = dir(module)
    assert names == sorted(names) and {"Detector", "Detections", "read_info"} <= set(names)
    for name in names:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match=r"retinart.*nonsense"):
        module.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_metadata_is_read_from_a_path_as_text(model_path: Path) -> None:
    assert retinart.read_info(str(model_path)) == retinart.read_info(model_path)
