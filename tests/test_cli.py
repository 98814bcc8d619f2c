"""The command line: exit codes, what goes to stdout, what to stderr, and what is left on disk."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from retinart.cli import main
from retinart.engine import detect_job
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.info import METADATA_KEY, read_info
from retinart.engine.video import VideoReader
from retinart.export import parity


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


class Command:
    """Runs `retinart ...` in this process, whatever it is given."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str | Path) -> Ran:
        self._capfd.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:  # how argparse ends
            code = int(str(stop.code))
        out, err = self._capfd.readouterr()
        assert "Traceback" not in err
        return Ran(code=code, out=out, err=err)


@pytest.fixture
def retinart(capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(capfd)


def _picture(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, (128, 96), interpolation=cv2.INTER_NEAREST), np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(3):
        assert cv2.imwrite(str(folder / f"{seed}.png"), _picture(seed))
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 96))
    for seed in range(10):
        writer.write(_picture(seed))
    writer.release()
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An ONNX file of somebody else."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    path = tmp_path / "foreign.onnx"
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return path


def _files(folder: Path) -> list[str]:
    """Every file, hidden ones too, so that a temporary one would show."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# ---- detect


def test_detect_on_a_folder(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = retinart("detect", model_path, images, "--out", out)
    assert ran.code == 0
    assert ran.out.splitlines() == [str(out / "detections.jsonl"), str(out)]
    assert "3 images, " in ran.err and ", 0 skipped" in ran.err
    assert "infer" in ran.err and "p50 ms" in ran.err  # where the time went
    assert _files(out) == ["0.png", "1.png", "2.png", "detections.jsonl"]
    lines = [json.loads(x) for x in (out / "detections.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [
        ["source", "frame", "time_ms", "width", "height", "detections"]
    ] * 3
    assert list(lines[0]["detections"][0]) == ["box", "score", "class_id", "class"]


def test_detect_on_an_image_a_glob_and_with_every_output(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    ran = retinart("detect", model_path, images / "1.png", "--out", tmp_path / "one")
    assert ran.code == 0 and _files(tmp_path / "one") == ["1.png", "detections.jsonl"]
    glob, out = f"{images}/[02].png", tmp_path / "some"
    coco, rows = tmp_path / "r.json", tmp_path / "r.csv"
    ran = retinart("detect", model_path, glob, "--out", out, "--coco", coco, "--csv", rows)
    assert ran.code == 0 and _files(out) == ["0.png", "2.png", "detections.jsonl"]
    assert ran.out.splitlines() == [str(p) for p in (out / "detections.jsonl", coco, rows, out)]
    lines = (out / "detections.jsonl").read_text().splitlines()
    count = sum(len(json.loads(line)["detections"]) for line in lines)
    assert len(json.loads(coco.read_text())) == count
    assert len(rows.read_text().splitlines()) == count + 1


def test_detect_on_a_video(
    retinart: Command, model_path: Path, video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = retinart("detect", model_path, video, "--out", out, "--conf", "0.5", "--strict")
    assert ran.code == 0 and "10 frames, " in ran.err
    assert _files(out) == ["clip.mp4", "detections.jsonl"]
    with VideoReader(out / "clip.mp4") as made:
        assert sum(1 for _ in made) == 10
    lines = [json.loads(x) for x in (out / "detections.jsonl").read_text().splitlines()]
    assert [line["time_ms"] for line in lines] == [100.0 * i for i in range(10)]
    assert all(d["score"] > 0.5 for line in lines for d in line["detections"])


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 1)])
def test_bad_images_in_a_folder(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, strict: bool, code: int
) -> None:
    (images / "empty.jpg").touch()
    (images / "cut.png").write_bytes((images / "0.png").read_bytes()[:80])
    out = tmp_path / "out"
    more = ["--strict"] if strict else []
    ran = retinart("detect", model_path, images, "--out", out, *more)
    assert ran.code == code
    assert f"skipped {images / 'empty.jpg'}: the file is empty\n" in ran.err
    assert f"skipped {images / 'cut.png'}: it is truncated or no image format\n" in ran.err
    assert ran.err.splitlines()[-1].startswith("3 images, ")
    assert ran.err.splitlines()[-1].endswith(", 2 skipped")
    assert _files(out) == ["0.png", "1.png", "2.png", "detections.jsonl"]


def test_nothing_but_bad_images(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.png"):
        (folder / name).touch()
    ran = retinart("detect", model_path, folder, "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith(
        f"retinart: no image at {folder} can be read. a.jpg: the file is empty.\n"
    )
    assert _files(tmp_path) == ["images/a.jpg", "images/b.png"]


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 1)])
def test_a_video_that_ends_in_the_middle_of_a_frame(
    retinart: Command, model_path: Path, video: Path, tmp_path: Path, strict: bool, code: int
) -> None:
    data = video.read_bytes()
    start, end = data.index(b"movi"), data.rindex(b"idx1")
    video.write_bytes(data[: start + (end - start) * 6 // 10])
    out = tmp_path / "out"
    ran = retinart("detect", model_path, video, "--out", out, *(["--strict"] if strict else []))
    assert ran.code == code
    with VideoReader(out / "clip.mp4") as made:
        frames = sum(1 for _ in made)
    assert 3 < frames < 9
    assert (
        f"the video ended early: {frames} of 10 frames could be decoded, and those are kept\n"
        in ran.err
    )
    assert len((out / "detections.jsonl").read_text().splitlines()) == frames
    assert _files(out) == ["clip.mp4", "detections.jsonl"]


def test_a_video_that_cannot_be_decoded(
    retinart: Command, model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "v.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 3000)
    ran = retinart("detect", model_path, tmp_path / "v.mp4", "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")
    assert f"retinart: cannot decode the video {tmp_path / 'v.mp4'}. it is empty, dama" in ran.err
    assert _files(tmp_path) == ["v.mp4"]


@pytest.mark.parametrize("below", [False, True])
def test_an_output_folder_that_cannot_be_made(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, below: bool
) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out" if below else tmp_path / "file"
    ran = retinart("detect", model_path, images, "--out", out)
    assert (ran.code, ran.out) == (2, "")
    assert f"retinart: cannot write to the folder {out}. " in ran.err
    assert ran.err.endswith("Choose another output folder or change its permissions.\n")
    assert _files(tmp_path) == ["file", "images/0.png", "images/1.png", "images/2.png"]
    assert (tmp_path / "file").read_text() == "mine"


def test_the_copies_do_not_overwrite_their_sources(
    retinart: Command, model_path: Path, images: Path
) -> None:
    before = {name: (images / name).read_bytes() for name in _files(images)}
    ran = retinart("detect", model_path, images, "--out", images)
    assert (ran.code, ran.out) == (2, "")
    assert "would overwrite its source" in ran.err and "--out" in ran.err
    assert {name: (images / name).read_bytes() for name in _files(images)} == before


def test_ctrl_c(
    retinart: Command,
    model_path: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = iter(range(100))
    real = Detector.__call__

    def stopped(self: Detector, image: Any, **more: Any) -> Detections:
        if next(calls) == 4:
            raise KeyboardInterrupt
        found = real(self, image, **more)
        assert isinstance(found, Detections)
        return found

    monkeypatch.setattr(Detector, "__call__", stopped)
    out = tmp_path / "out"
    ran = retinart("detect", model_path, video, "--out", out)
    assert ran.code == 130
    assert ran.err.endswith("interrupted; what was done until then is kept\n")
    assert ran.out.splitlines() == [str(out / "detections.jsonl"), str(out / "clip.mp4")]
    lines = (out / "detections.jsonl").read_text()
    assert lines.endswith("}\n") and len([json.loads(x) for x in lines.splitlines()]) == 4
    with VideoReader(out / "clip.mp4") as made:
        assert sum(1 for _ in made) == 4
    assert _files(out) == ["clip.mp4", "detections.jsonl"]


def test_ctrl_c_at_once(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*args: Any, **more: Any) -> Detections:
        raise KeyboardInterrupt

    monkeypatch.setattr(Detector, "__call__", stopped)
    ran = retinart("detect", model_path, images, "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (130, "") and ran.err.endswith("interrupted\n")
    assert _files(tmp_path / "out") == []


def test_a_full_disk_is_said_in_a_line(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr(detect_job, "_write_picture", full)
    ran = retinart("detect", model_path, images, "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("retinart: cannot read or write x.png. No space left on device.\n")
    assert _files(tmp_path / "out") == []


def test_a_defect_of_ours_is_no_traceback_without_debug(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any, **more: Any) -> None:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr(Detector, "__call__", broken)
    arguments = ["detect", str(model_path), str(images), "--out", str(tmp_path / "out")]
    ran = retinart(*arguments)
    assert ran.code == 70
    assert ran.err.endswith(
        "retinart: this should not have happened: ZeroDivisionError: seven\n"
        "Run it again with --debug and report what it prints.\n"
    )
    assert _files(tmp_path / "out") == []
    with pytest.raises(ZeroDivisionError, match="seven"):
        main([*arguments, "--debug"])


# ---- models that are none


@pytest.mark.parametrize("command", ["detect", "eval", "inspect"])
def test_an_onnx_of_somebody_else(
    retinart: Command, foreign: Path, images: Path, tmp_path: Path, command: str
) -> None:
    more: dict[str, list[str | Path]] = {
        "detect": [images, "--out", tmp_path / "out"],
        "eval": ["--images", images, "--annotations", tmp_path / "none.json"],
        "inspect": ["--json"],
    }
    ran = retinart(command, foreign, *more[command])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"retinart: {foreign} carries no metadata of retinart. it is not known which input, "
        "classes and thresholds it has, and guessing them gives wrong detections silently. "
        "Make the file again with `retinart export CHECKPOINT -o model.onnx`.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["detect", "inspect"])
def test_a_missing_and_a_truncated_model(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, command: str
) -> None:
    more: list[str | Path] = [images, "--out", tmp_path / "out"] if command == "detect" else []
    ran = retinart(command, tmp_path / "none.onnx", *more)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"retinart: there is no model at {tmp_path / 'none.onnx'}. Check the path.\n"
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(model_path.read_bytes()[:-500])
    ran = retinart(command, cut, *more)
    assert (ran.code, ran.out) == (2, "")
    assert f"retinart: {cut} is not a readable ONNX file. it is truncated" in ran.err
    assert not (tmp_path / "out").exists()


# ---- export


def _torch_file(path: Path, content: Any) -> None:
    torch.save(content, path)


class _Hostile:
    """Unpickled without care, it makes a file."""

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
        ("folder", "there is no checkpoint at "),
        ("truncated", "cannot read the checkpoint "),
        ("cut short", "checkpoint "),
        ("empty", "checkpoint "),
        ("web page", "checkpoint "),
        pytest.param(
            *("text", "cannot read the checkpoint "),
            marks=pytest.mark.xfail(
                reason="read_torch_file lets out the unpickler's IndexError: it raises anything"
            ),
        ),
        ("foreign", " is not a RetinaNet checkpoint that retinart knows. its 2 tensors"),
        ("no tensors", " holds no state dict. "),
        ("a list", " holds no state dict. "),
        ("hostile", "refused to read the checkpoint "),
        ("hostile pickle", "cannot read the checkpoint "),
    ],
)
def test_a_checkpoint_that_is_none(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path, kind: str, message: str
) -> None:
    path = _bad_checkpoint(kind, tmp_path, noisy_checkpoint)
    before = _files(tmp_path)
    ran = retinart("export", path, "-o", tmp_path / "out" / "model.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("retinart: ") and message in ran.err and str(path) in ran.err
    assert _files(tmp_path) == before
    assert not (tmp_path / "owned").exists() and not (tmp_path / "out").exists()


def test_export_writes_a_file_that_says_what_it_is(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("apple\n\n  pear \nplum\n")
    size = ["--height", "64", "--width", "96", "--conf", "0.1", "--iou", "0.6", "--max-det", "9"]
    path = tmp_path / "new" / "fruit.onnx"
    names = ["--classes", tmp_path / "names.txt"]
    ran = retinart("export", noisy_checkpoint, "-o", path, *size, *names, "--skip-tensorrt")
    assert ran.code == 0 and ran.out == f"{path}\n"
    assert "PyTorch and the file agree on 2 images" in ran.err
    assert _files(tmp_path) == ["names.txt", "new/fruit.onnx"]
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
    assert (ran.code, ran.out) == (1, "")
    assert "raw outputs differ from PyTorch's by " in ran.err and "No file was written" in ran.err
    assert _files(tmp_path) == ["model.onnx"] and path.read_text() == "an earlier one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--height", "100", "--width", "128"], "Use --height 128 --width 128"),
        (["--height", "96"], "only one of height and width is given"),
        (["--imgsz", "7"], "the input size 7 is out of range"),
        (["--dynamic", "--height", "96", "--width", "96"], "exclude each other"),
        (["--conf", "1.5"], "score_thresh is 1.5. Give a value from 0 to 1."),
        (["--max-det", "0"], "detections_per_img is 0. Give a whole number from 1 to 2000."),
        (["--classes", "/none.txt"], "cannot read class names from /none.txt"),
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
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("retinart: ") and message in ran.err
    assert _files(tmp_path) == []


def test_an_export_into_a_place_that_is_none(
    retinart: Command, noisy_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "model.onnx"
    size = ["--height", "64", "--width", "96"]
    ran = retinart("export", noisy_checkpoint, "-o", path, *size, "--skip-tensorrt")
    assert (ran.code, ran.out) == (2, "")
    assert f"retinart: cannot write to the folder {tmp_path / 'file'}. " in ran.err
    assert _files(tmp_path) == ["file"]


# ---- eval


def _annotations(folder: Path, **changes: Any) -> Path:
    document: dict[str, Any] = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 96, "width": 128} for i in range(3)
        ],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "square"}],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [9, 9, 40, 40], "area": 1600}
            for i in range(3)
        ],
    }
    for key, value in changes.items():
        document[key] = document[key] + value if key != "categories" else value
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return path


def test_eval(retinart: Command, model_path: Path, images: Path, tmp_path: Path) -> None:
    path = _annotations(tmp_path)
    ran = retinart("eval", model_path, "--images", images, "--annotations", path)
    assert ran.code == 0
    assert ran.out.splitlines()[0].split()[0] == "AP" and "AP by class (3 images)" in ran.out
    assert "instances.json: 3 images" in ran.err

    ran = retinart("eval", model_path, "--images", images, "--annotations", path, "--json")
    assert ran.code == 0
    result = json.loads(ran.out)
    assert list(result) == ["figures", "per_class", "images", "problems", "skipped", "ms_per_image"]
    assert list(result["figures"]) == [
        *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
        *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
    ]
    assert list(result["per_class"]) == ["disc", "square"]
    assert result["images"] == 3 and 0 <= result["figures"]["AP"] <= 1
    assert result["per_class"]["square"] is None  # annotated nowhere
    assert list(result["ms_per_image"]) == ["decode", "resize", "infer", "nms", "results"]
    assert _files(tmp_path) == ["images/0.png", "images/1.png", "images/2.png", "instances.json"]


def test_eval_on_spoiled_annotations(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    """Everything that is wrong is named on stderr, and the figures come all the same."""
    bad = {"id": 50, "image_id": 0, "category_id": 1, "bbox": [9, 9, 0, 40], "area": 0}
    path = _annotations(
        tmp_path,
        images=[{"id": 7, "file_name": "gone.png", "height": 9, "width": 9}],
        annotations=[bad, {**bad, "id": 51, "category_id": 44, "bbox": [1, 1, 9, 9]}],
    )
    (images / "2.png").write_bytes(b"")
    ran = retinart("eval", model_path, "--images", images, "--annotations", path, "--json")
    assert ran.code == 0
    for line in (
        "1 missing image files (images dropped): gone.png",
        "1 zero-area boxes (dropped): annotation 50",
        "1 unknown categories (boxes dropped): 44 of annotation 51",
        f"skipped {images / '2.png'}: the file is empty",
    ):
        assert f"{line}\n" in ran.err
    result = json.loads(ran.out)
    assert result["images"] == 2 and result["figures"]["AP"] is not None
    assert result["skipped"] == [[str(images / "2.png"), "the file is empty"]]
    assert len(result["problems"]) == 4  # the summary, and the three above


def test_eval_refuses_what_it_cannot_use(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    path = _annotations(tmp_path, categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}])
    ran = retinart("eval", model_path, "--images", images, "--annotations", path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "retinart: the model and the annotations share no class name. the model has disc, square, "
        "ring; the annotations have cat, dog. Give the model its names with `retinart export "
        "--classes FILE`.\n"
    )
    ran = retinart("eval", model_path, "--images", tmp_path / "no", "--annotations", path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"retinart: there is no folder {tmp_path / 'no'}. Give the ")
    (tmp_path / "empty").mkdir()
    ran = retinart("eval", model_path, "--images", tmp_path / "empty", "--annotations", path)
    assert ran.code == 2 and "none of the 3 images of" in ran.err
    path.write_text("{")
    ran = retinart("eval", model_path, "--images", images, "--annotations", path)
    assert ran.code == 2 and "it is not JSON or was cut off" in ran.err


# ---- inspect, doctor


def test_inspect(retinart: Command, model_path: Path, dynamic_model_path: Path) -> None:
    ran = retinart("inspect", model_path, "--json")
    assert (ran.code, ran.err) == (0, "")
    said = json.loads(ran.out)
    assert list(said)[:4] == ["file", "bytes", "sha256", "schema"]
    assert said["bytes"] == model_path.stat().st_size and len(said["sha256"]) == 64
    assert said["classes"] == ["disc", "square", "ring"] and said["precision"] == "fp32"
    assert said["resize"]["canvas"] == [96, 128]
    assert said["variant"]["backbone"] == "tiny"
    assert said["thresholds"]["detections_per_img"] == 100
    assert len(said["provenance"]["checkpoint_sha256"]) == 64
    for path, size in ((model_path, "96, 128"), (dynamic_model_path, "height 32 to 160, width 32")):
        ran = retinart("inspect", path)
        assert (ran.code, ran.err) == (0, "")
        assert f"uint8 (batch, {size}" in ran.out and "3: disc, square, ring" in ran.out


def test_doctor(retinart: Command) -> None:
    ran = retinart("doctor")
    assert (ran.code, ran.err) == (0, "") and ran.out.startswith("Python 3.")
    ran = retinart("doctor", "--json")
    parts = {p["name"]: p for p in json.loads(ran.out)}
    assert parts["openvino"]["version"] and not parts["openvino"]["command"]
    for part in parts.values():
        assert list(part) == ["name", "version", "purpose", "command"]
        assert bool(part["version"]) != bool(part["command"])


# ---- usage


@pytest.mark.parametrize(
    "arguments",
    [
        [],
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
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("usage: retinart") and "error: " in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--conf", "2"], "score_thresh is 2.0. Give a value from 0 to 1."),
        (["--threads", "0"], "threads is 0. Give a whole number"),
        (["--device", "FOO"], "for the device FOO. "),
        (["--runtime", "onnxruntime", "--iou", "0.9"], "cannot be made looser"),
    ],
)
def test_flags_that_do_not_fit(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    ran = retinart("detect", model_path, images, "--out", tmp_path / "out", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("retinart: ") and message in ran.err
    assert not (tmp_path / "out").exists()


def test_help_and_version(retinart: Command) -> None:
    ran = retinart("--help")
    assert ran.code == 0 and ran.err == ""
    for command in ("detect", "eval", "export", "inspect", "doctor", "demo", "train"):
        assert f"    {command} " in ran.out
    assert retinart("--version").out.startswith("retinart 0.")


# ---- as a process


def _process(*arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "retinart", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def test_python_m_retinart(model_path: Path, images: Path, tmp_path: Path) -> None:
    ran = _process("detect", model_path, "images", "--out", "out", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["out/detections.jsonl", "out"]
    assert _files(tmp_path / "out") == ["0.png", "1.png", "2.png", "detections.jsonl"]
    ran = _process("inspect", tmp_path / "none.onnx")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("retinart: there is no model at ")
    ran = _process("inspect", tmp_path / "none.onnx", "--debug")
    assert "Traceback" in ran.stderr and "BadInput" in ran.stderr


def test_a_reader_that_goes_away(model_path: Path) -> None:
    """`retinart inspect MODEL --json | head -1` ends quietly."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "retinart", "inspect", str(model_path), "--json"]
    # with a buffer, as users have it: the error comes at the last flush
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
    assert (ran.code, ran.out) == (2, "")
    assert f"retinart: the metadata of {path} is damaged. " in ran.err
