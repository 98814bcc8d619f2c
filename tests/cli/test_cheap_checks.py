"""What cannot work is refused before a model or PyTorch is loaded, which takes seconds.

The model that the commands are given does not exist: an error about something else came first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from retinart.cli import main
from support import run_python

Command = Callable[..., CompletedProcess[str]]


def first_error(retinart: Command, *arguments: str | Path) -> str:
    ran = retinart("detect", "none.onnx", *arguments)
    assert ran.returncode in (2, 3) and ran.stdout == ""
    return ran.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.mp4", "there is no video at none.mp4. Check the path."),
        ("none.png", "no images at none.png: there is no such file or folder."),
        ("none/*.png", "no images at none/*.png: nothing matches."),
        ("none/f_%03d.png", "no images at none/f_%03d.png: nothing matches."),
    ],
)
def test_a_missing_source(retinart: Command, tmp_path: Path, source: str, message: str) -> None:
    assert message in first_error(retinart, source, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="webcams have no device files there")
def test_a_webcam_that_is_not_there(retinart: Command, tmp_path: Path) -> None:
    """Seen: five attempts in 20 s, for a device file that does not exist."""
    said = first_error(retinart, "97", "--out", tmp_path / "out")
    assert said.startswith("retinart: there is no webcam 97: /dev/video97 does not exist. ")


def test_an_output_folder_that_cannot_be_written(
    retinart: Command, images: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"cannot write to the folder {file / 'out'}" in first_error(
        retinart, images, "--out", file / "out"
    )


def test_the_results_of_an_earlier_benchmark(retinart: Command, tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").touch()
    ran = retinart("benchmark", "none.onnx", "--out", tmp_path)
    assert ran.returncode == 2 and "holds the results of another run" in ran.stderr
    ran = retinart("benchmark", "none.onnx", "--out", tmp_path, "--overwrite")
    assert "none.onnx" in ran.stderr and "another run" not in ran.stderr


def test_packages_for_tracking_and_a_window(
    retinart: Command, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    said = first_error(retinart, images, "--track", "--out", tmp_path / "out")
    assert "Tracking needs the package trackers, which is not installed" in said
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    said = first_error(retinart, images, "--show", "--out", tmp_path / "out")
    assert "a window cannot be opened" in said and "leave --show out" in said


def test_with_all_in_order_the_model_is_missed(
    retinart: Command, images: Path, tmp_path: Path
) -> None:
    assert "there is no model at none.onnx" in first_error(
        retinart, images, "rtsp://127.0.0.1:9/x", "--out", tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()


def test_an_evaluation_that_cannot_begin(
    retinart: Command, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model does not exist either, and is missed last."""
    file, used = tmp_path / "a.json", tmp_path / "used"
    file.write_text("{}")
    used.mkdir()
    (used / "comparison.json").touch()
    whole = ("--images", images, "--annotations", file)
    against = (*whole, "--against", "none.onnx", "--out")
    for given, message in (
        (("--images", "gone", "--annotations", file), "there is no folder gone"),
        (("--images", images, "--annotations", "gone.json"), "there is no gone.json"),
        ((*against, file / "out"), f"cannot write to the folder {file / 'out'}"),
        ((*against, used), f"{used} holds the results of another run"),
        ((*against, tmp_path / "new"), "there is no model at none.onnx"),
    ):
        ran = retinart("eval", "none.onnx", *given)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    assert not (tmp_path / "new").exists()
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    ran = retinart("eval", "none.onnx", *whole)
    assert ran.returncode == 3 and "pycocotools" in ran.stderr


WITHOUT_TORCH = """
import sys
from retinart.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


def test_an_export_that_cannot_begin(tmp_path: Path) -> None:
    file, checkpoint = tmp_path / "file", tmp_path / "a.pt"
    file.touch()
    checkpoint.touch()
    for given, message in (
        (("none.pt",), "there is no checkpoint at none.pt"),
        ((checkpoint, "--images", "gone"), "no images at gone"),
        ((checkpoint, "-o", file / "a.onnx"), f"cannot write to the folder {file}"),
        ((checkpoint, "-o", "a.engine"), "does not end in .onnx"),
    ):
        ran = run_python("-c", WITHOUT_TORCH, "export", *map(str, given))
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "file"]


@pytest.mark.parametrize(("command", "suffix"), [("calibrate", "int8"), ("convert", "fp16")])
def test_an_output_that_cannot_be_written(
    retinart: Command, images: Path, tmp_path: Path, command: str, suffix: str
) -> None:
    """It is seen before the model is read and run on images."""
    file = tmp_path / "file"
    file.touch()
    given = ("none.onnx", "--images", images, "-o", file / f"a.{suffix}.onnx")
    ran = retinart(command, *given)
    assert ran.returncode == 2 and f"cannot write to the folder {file}" in ran.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--name", "used"], "used holds a finished or stopped run. Choose another --name"),
        (
            ["--name", "new", "--val-images", "gone", "--val-annotations", "gone"],
            "there is no gone",
        ),
        (["--lr", "-1"], "at a learning rate of -1.0"),
        (["--flip", "2"], "the probability of a flip is 2"),
    ],
)
def test_a_training_that_cannot_begin(tmp_path: Path, more: list[str], message: str) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "last.pt").touch()
    given = ["--images", str(tmp_path), "--annotations", str(tmp_path), "--out", str(tmp_path)]
    ran = run_python("-c", WITHOUT_TORCH, "train", *given, *more)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert message in ran.stderr


def test_no_run_to_go_on_with(tmp_path: Path) -> None:
    ran = run_python("-c", WITHOUT_TORCH, "train", "--resume", str(tmp_path))
    assert ran.returncode == 2 and f"{tmp_path} holds no run" in ran.stderr


def test_an_unknown_model_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--images", str(tmp_path), "--annotations", str(tmp_path), "--out", str(tmp_path)]
    assert main(["train", *given, "--model", "resnet9"]) == 2
    assert "unknown model 'resnet9'" in capsys.readouterr().err
