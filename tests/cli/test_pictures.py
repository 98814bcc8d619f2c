"""What commands say of pictures: what was changed, and why one is refused, with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pytest

from made_pictures import encoded, png, tiff, turned
from retinart.benchmarks.timing import peaks
from support import make_picture

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder of a picture of each kind that is changed as it is read."""
    folder = tmp_path / "odd"
    folder.mkdir()
    rgb = make_picture(1)[:, :, ::-1].copy()
    (folder / "a.jpg").write_bytes(turned("JPEG", rgb, 6))
    (folder / "b.tif").write_bytes(tiff(rgb.astype(np.uint16) * 257, pages=2))
    assert cv2.imwrite(str(folder / "c.png"), rgb.astype(np.uint16) << 4)
    (folder / "d.png").write_bytes(encoded(rgb, "PNG", alpha=rgb[:, :, 0].copy()))
    return folder


CHANGED = (
    "1 images turned or mirrored by EXIF (taken as viewers show them): a.jpg",
    "1 images of 16 bits (scaled to 8): b.tif",
    "1 images of several frames or pages (the first one is taken): b.tif",
    "1 images with values of 12 bits in 16, by the largest one (scaled from those): c.png",
    "1 images with an alpha channel (it is left out): d.png",
)


@pytest.mark.parametrize("command", ["detect", "calibrate", "convert"])
def test_what_was_changed_of_pictures_is_said_once(
    retinart: Command, model_path: Path, odd: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / ("out" if command == "detect" else "out.onnx")
    source = [odd] if command == "detect" else ["--images", odd, "--num", "4"]
    ran = retinart(command, model_path, *source, "--out", out)
    assert ran.returncode == 0, ran.stderr
    for line in CHANGED:
        assert ran.stderr.splitlines().count(line) == 1, ran.stderr


@pytest.mark.parametrize("command", ["eval", "data check"])
def test_what_was_changed_of_annotated_pictures_is_said_once(
    retinart: Command, model_path: Path, odd: Path, tmp_path: Path, command: str
) -> None:
    names = sorted(path.name for path in odd.iterdir())
    sizes = {name: (128, 96) if name == "a.jpg" else (96, 128) for name in names}
    box = {"category_id": 1, "bbox": [9, 9, 40, 40], "area": 1600, "iscrowd": 0}
    document = {
        "images": [
            {"id": i, "file_name": name, "height": h, "width": w}
            for i, (name, (h, w)) in enumerate(sizes.items())
        ],
        "annotations": [{**box, "id": i, "image_id": i} for i in range(len(names))],
        "categories": [{"id": 1, "name": "disc"}],
    }
    annotations = tmp_path / "odd.json"
    annotations.write_text(json.dumps(document))
    words = ["data", "check"] if command == "data check" else [command, str(model_path)]
    ran = retinart(*words, "--images", odd, "--annotations", annotations)
    assert ran.returncode == 0, ran.stderr
    for line in CHANGED:
        assert (ran.stdout + ran.stderr).splitlines().count(line) == 1, ran.stdout + ran.stderr


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A folder of a picture with too many pixels, and its annotations beside it."""
    folder = tmp_path / "huge"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(30_000, 30_000, 8, 0, (b"IDAT", b"")))
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 9, 99, 99], "area": 9801}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 30_000, "width": 30_000}],
        "annotations": [{**box, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "disc"}],
    }
    (tmp_path / "huge.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "detect MODEL IMAGES/a.png --out OUT",
        "detect MODEL IMAGES --out OUT",
        "eval MODEL --images IMAGES --annotations IMAGES.json",
        "data check --images IMAGES --annotations IMAGES.json",
        "train --images IMAGES --annotations IMAGES.json --out OUT",
        "calibrate MODEL --images IMAGES --num 1 -o OUT",
        "convert MODEL --images IMAGES --num 1 -o OUT",
        "export CHECKPOINT --images IMAGES -o OUT --height 96 --width 128 --skip-tensorrt",
        "benchmark MODEL --images IMAGES --num-images 1 --repeats 1 --out OUT",
    ],
    ids=lambda text: text.split(" -")[0],
)
def test_too_many_pixels_in_every_command(
    retinart: Command,
    model_path: Path,
    noisy_checkpoint: Path,
    huge: Path,
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peaks, "_PRODUCTS", ((256, 256, 256),))  # of the benchmark
    named = {"MODEL": model_path, "CHECKPOINT": noisy_checkpoint, "OUT": tmp_path / "out.onnx"}
    words: list[str] = []
    for word in command.split():
        words.append(str(named.get(word, word.replace("IMAGES", str(huge)))))
    ran = retinart(*words)
    assert ran.returncode in (1, 2), ran.stderr
    said = ran.stdout + ran.stderr
    assert "image size (900000000 pixels) exceeds limit of 100000000 pixels, could be deco" in said
    assert "if you trust it, raise --max-pixels" in said, said


def test_the_limit_of_pixels_is_an_option(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    ran = retinart("detect", model_path, images, "--out", tmp_path / "a", "--max-pixels", "9")
    assert ran.returncode == 2 and "exceeds limit of 9 pixels" in ran.stderr
    ran = retinart("detect", model_path, images, "--out", tmp_path / "a")
    assert ran.returncode == 0, ran.stderr  # it was of that command alone
    ran = retinart("detect", model_path, images, "--out", tmp_path / "b", "--max-pixels", "-9")
    assert ran.stderr == "retinart: --max-pixels is -9. Give a whole number from 1 on.\n"
