"""`retinart eval`: its figures, and damaged annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from support import files_below

Command = Callable[..., CompletedProcess[str]]


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
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[0].split()[0] == "AP" and "AP by class (3 images)" in ran.stdout
    assert "instances.json: 3 images" in ran.stderr

    ran = retinart("eval", model_path, "--images", images, "--annotations", path, "--json")
    assert ran.returncode == 0
    result = json.loads(ran.stdout)
    assert list(result) == [
        *("figures", "per_class", "images", "problems", "skipped", "limits", "ms_per_image"),
        *("operating", "confusion"),
    ]
    assert list(result["figures"]) == [
        *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
        *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
    ]
    assert list(result["per_class"]) == ["disc", "square"]
    assert result["images"] == 3 and 0 <= result["figures"]["AP"] <= 1
    assert result["per_class"]["square"] is None  # it has no annotations
    assert list(result["ms_per_image"]) == ["decode", "resize", "infer", "nms", "results"]
    assert files_below(tmp_path) == [
        "images/0.png",
        "images/1.png",
        "images/2.png",
        "instances.json",
    ]


def test_eval_tells_of_limits_once(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    """Each model has its own line, and the counts are stored."""
    data = ("--images", images, "--annotations", _annotations(tmp_path), "--json")
    ran = retinart("eval", model_path, *data, "--max-det", "3")
    line = "3 of 3 images may hold more detections with a score from 0.3 on: raise --max-det"
    assert ran.returncode == 0 and ran.stderr.count(line) == 1
    assert json.loads(ran.stdout)["limits"] == {"detections": 3, "candidates": 3}

    both = ("--against", model_path, "--out", tmp_path / "out", "--max-det", "3")
    ran = retinart("eval", model_path, *data, *both)
    assert ran.returncode == 0 and ran.stderr.count(f"{model_path.name}: {line}") == 2
    assert json.loads(ran.stdout)["second"]["limits"] == {"detections": 3, "candidates": 3}

    ran = retinart("eval", model_path, *data, "--conf", "0.99")
    assert ran.returncode == 0 and "may hold more" not in ran.stderr
    assert json.loads(ran.stdout)["limits"] == {"detections": 0, "candidates": 0}


def test_eval_on_spoiled_annotations(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    """stderr names every problem, and the figures are printed all the same."""
    bad = {"id": 50, "image_id": 0, "category_id": 1, "bbox": [9, 9, 0, 40], "area": 0}
    path = _annotations(
        tmp_path,
        images=[{"id": 7, "file_name": "gone.png", "height": 9, "width": 9}],
        annotations=[bad, {**bad, "id": 51, "category_id": 44, "bbox": [1, 1, 9, 9]}],
    )
    (images / "2.png").write_bytes(b"")
    ran = retinart("eval", model_path, "--images", images, "--annotations", path, "--json")
    assert ran.returncode == 0
    for line in (
        "1 missing image files (images dropped): gone.png",
        "1 zero-area boxes (not learned; counted as missed in eval): annotation 50",
        "1 unknown categories (boxes dropped): 44 of annotation 51",
        f"skipped {images / '2.png'}: the file is empty",
    ):
        assert f"{line}\n" in ran.stderr
    result = json.loads(ran.stdout)
    assert result["images"] == 2 and result["figures"]["AP"] is not None
    assert result["skipped"] == [[str(images / "2.png"), "the file is empty"]]
    assert len(result["problems"]) == 5  # the summary, the three above, and the class ring


def test_eval_refuses_what_it_cannot_use(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    path = _annotations(tmp_path, categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}])
    ran = retinart("eval", model_path, "--images", images, "--annotations", path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.endswith(
        "retinart: the model and the annotations share no class name: the model has disc, square, "
        "ring; the annotations have cat, dog. Give the model its names with `retinart export "
        "--classes FILE`.\n"
    )
    ran = retinart("eval", model_path, "--images", tmp_path / "no", "--annotations", path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"retinart: there is no folder {tmp_path / 'no'}. Give the ")
    (tmp_path / "empty").mkdir()
    ran = retinart("eval", model_path, "--images", tmp_path / "empty", "--annotations", path)
    assert ran.returncode == 2 and "none of the 3 images of" in ran.stderr
    path.write_text("{")
    ran = retinart("eval", model_path, "--images", images, "--annotations", path)
    assert ran.returncode == 2 and "it is not JSON or was cut off" in ran.stderr
