"""`retinart export`: what it writes, and which files it refuses as checkpoints."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retinart.cli import export
from retinart.engine.evaluation.matching import Match
from retinart.engine.model.info import read_info
from retinart.export import parity
from retinart.export.export import ExportReport
from support import files_below, made_info

Command = Callable[..., CompletedProcess[str]]
READING = "reading the checkpoint\n"  # the first step


def _torch_file(path: Path, content: Any) -> None:
    torch.save(content, path)


class _Hostile:
    """Unpickling it runs code: it makes a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._path),)


def _bad_checkpoint(kind: str, folder: Path, good: Path) -> Path:
    path = folder / "bad.pt"
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:-4000])
    elif kind == "cut short":
        path.write_bytes(good.read_bytes()[:100])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("these are no weights\n" * 50)
    elif kind == "web page":
        path.write_text("<!DOCTYPE html>\n<html>Please log in</html>\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "foreign":
        _torch_file(path, {"layer.weight": torch.zeros(3, 3), "layer.bias": torch.zeros(3)})
    elif kind == "no tensors":
        _torch_file(path, {"epoch": 3})
    elif kind == "a list":
        _torch_file(path, [torch.zeros(3)])
    elif kind == "hostile":
        _torch_file(path, {"model": _Hostile(folder / "owned")})
    elif kind == "hostile pickle":
        path = path.with_suffix(".pkl")
        path.write_bytes(pickle.dumps({"model": _Hostile(folder / "owned")}))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no checkpoint at "),
        ("folder", ": it is a folder. Give a regular file."),
        ("truncated", "cannot read the checkpoint "),
        ("cut short", "checkpoint "),
        ("empty", "checkpoint "),
        ("web page", "checkpoint "),
        ("text", "cannot read the checkpoint "),
        ("foreign", " is not a RetinaNet checkpoint that retinart knows: its 2 tensors"),
        ("no tensors", " holds no state dict: "),
        ("a list", " holds no state dict: "),
        ("hostile", "refused to read the checkpoint "),
        ("hostile pickle", "cannot read the checkpoint "),
    ],
)
def test_a_checkpoint_that_is_none(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path, kind: str, message: str
) -> None:
    path = _bad_checkpoint(kind, tmp_path, noisy_checkpoint)
    before = files_below(tmp_path)
    ran = retinart("export", path, "-o", tmp_path / "out" / "model.onnx")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.removeprefix(READING).startswith("retinart: ")
    assert message in ran.stderr and str(path) in ran.stderr
    assert files_below(tmp_path) == before
    assert not (tmp_path / "owned").exists() and not (tmp_path / "out").exists()


def test_export_writes_a_file_that_says_what_it_is(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path
) -> None:
    # as Notepad saves it, with a byte order mark
    (tmp_path / "names.txt").write_text("apple\n\n  pear \nplum\n", encoding="utf-8-sig")
    size = ["--height", "64", "--width", "96", "--conf", "0.1", "--iou", "0.6", "--max-det", "9"]
    path = tmp_path / "new" / "fruit.onnx"
    names = ["--classes", tmp_path / "names.txt"]
    ran = retinart("export", noisy_checkpoint, "-o", path, *size, *names, "--skip-tensorrt")
    assert ran.returncode == 0 and ran.stdout == f"{path}\n"
    assert ran.stderr.splitlines()[:4] == [
        "reading the checkpoint",
        "making the ONNX graph",
        "computing the answers of the file's self-test",
        "comparing the file with PyTorch",
    ]
    assert "PyTorch and the file agree on 2 images" in ran.stderr
    assert " is a checkpoint of retinart: tiny, 3 classes\n" in ran.stderr
    assert "the file's input: height 64, width 96\n" in ran.stderr
    assert files_below(tmp_path) == ["names.txt", "new/fruit.onnx"]
    info = read_info(path)
    assert (info.name, info.classes) == ("fruit", ("apple", "pear", "plum"))
    assert info.resize.canvas == (64, 96)
    built = info.thresholds
    assert (built.score_thresh, built.nms_thresh, built.detections_per_img) == (0.1, 0.6, 9)


def test_an_export_that_differs_from_pytorch_is_no_file(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "TOLERANCE", 1e-12)
    path = tmp_path / "model.onnx"
    path.write_text("an earlier one")
    size = ["--height", "64", "--width", "96"]
    ran = retinart("export", noisy_checkpoint, "-o", path, *size, "--skip-tensorrt")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert (
        "raw outputs differ from PyTorch's by " in ran.stderr
        and "No file was written" in ran.stderr
    )
    assert files_below(tmp_path) == ["model.onnx"] and path.read_text() == "an earlier one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--height", "100", "--width", "128"], "Set --height to 128 and --width to 128"),
        (["--height", "96"], "only one of --height and --width is given"),
        (["--imgsz", "7"], "--imgsz is 7"),
        (["--dynamic", "--height", "96", "--width", "96"], "exclude each other"),
        (["--conf", "1.5"], "--conf is 1.5. Give a value from 0 to 1."),
        (
            ["--max-det", "0"],
            "--max-det is 0. Give a whole number from 1 to 5000.",
        ),
        (["--classes", "/none.txt"], "cannot read the class names in /none.txt"),
        (["-o", "model.pt"], "does not end in .onnx"),
        (["--images", "/none"], "no images at /none"),
    ],
)
def test_settings_that_an_export_refuses(
    retinart: Command,
    noisy_checkpoint: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = retinart("export", noisy_checkpoint, "--skip-tensorrt", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.removeprefix(READING).startswith("retinart: ") and message in ran.stderr
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names.txt holds no class names. Give one name a line"),
        ("\n  \n", "names.txt holds no class names. Give one name a line"),
        ("apple\npear\n apple\n", "names.txt holds a name twice: it is 'apple'. Give each class"),
    ],
)
def test_files_that_hold_no_class_names(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path, text: str, message: str
) -> None:
    """An empty file is an error. It does not ask for the checkpoint's names."""
    (tmp_path / "names.txt").write_text(text)
    out = tmp_path / "model.onnx"
    ran = retinart("export", noisy_checkpoint, "-o", out, "--classes", tmp_path / "names.txt")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert message in ran.stderr and files_below(tmp_path) == ["names.txt"]


def test_an_export_into_a_path_below_a_file(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "model.onnx"
    size = ["--height", "64", "--width", "96"]
    ran = retinart("export", noisy_checkpoint, "-o", path, *size, "--skip-tensorrt")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"retinart: cannot write to the folder {tmp_path / 'file'}: " in ran.stderr
    assert files_below(tmp_path) == ["file"]


def test_names_that_differ_in_case_only_are_noted(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path
) -> None:
    """The file keeps both names, but evaluation ignores the case."""
    names, path = tmp_path / "names.txt", tmp_path / "model.onnx"
    names.write_text("Cat\ndog\ncat\n")
    size = ["--height", "64", "--width", "96", "--skip-tensorrt"]
    ran = retinart("export", noisy_checkpoint, "-o", path, *size, "--classes", names)
    assert ran.returncode == 0 and read_info(path).classes == ("Cat", "dog", "cat")
    assert "the classes 'Cat' and 'cat' differ in case only: they are two" in ran.stderr


def test_what_was_assumed_is_told(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights fine-tuned from torchvision's need another epsilon, and no line said so."""
    report = ExportReport(
        path=model_path,
        info=read_info(model_path),
        parity=parity.ParityReport(
            images=1, head_diff=0.0, detections=Match(), native=Match(), even=Match()
        ),
        tensorrt=None,
    )
    export.say_export(report)
    assert "does not tell" not in capsys.readouterr().err
    export.say_export(dataclasses.replace(report, assumed=("bn_eps",)))
    said = capsys.readouterr().err
    assert "the checkpoint does not tell bn_eps: 1e-05 is assumed; if" in said
    assert "--set bn_eps=0" in said


def test_a_self_test_without_detections_is_told(model_path: Path) -> None:
    info = read_info(model_path)
    assert info.probe is not None and export._probe_text(info) == ""
    none = dataclasses.replace(info, probe=dataclasses.replace(info.probe, detections=()))
    assert "no detection in the picture of the file's self-test" in export._probe_text(none)


def test_an_input_that_is_larger_than_asked_for_is_explained() -> None:
    """`--imgsz 600` gave 608x800, and no line said why."""
    rule = made_info().resize
    padded = dataclasses.replace(rule, short_side=600, canvas=(608, 800), pad_multiple=32)
    text = export._padding_text(made_info(resize=padded))
    assert text == " (600 on the shorter side, and padding up to a multiple of 32)"
    for same in ({"short_side": 608}, {"short_side": None}, {"canvas": None}):
        changed = dataclasses.replace(padded, **same)
        assert export._padding_text(SimpleNamespace(resize=changed)) == ""  # type: ignore[arg-type]
