"""COCO results that pycocotools takes: ids of annotations, COCO's own, or a name for what it is."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco_names import COCO_80, COCO_91, coco_category_ids
from retinart.engine.evaluation.result_ids import ids_of_annotations, ids_of_coco
from support import make_picture, write_images

Command = Callable[..., CompletedProcess[str]]
FILE = Path("r.json")


def test_the_ids_of_coco() -> None:
    contiguous, by_id = coco_category_ids(COCO_80), coco_category_ids(COCO_91)
    assert (contiguous[0], contiguous[11], contiguous[79]) == (1, 13, 90)
    assert by_id == {i: i for i in sorted(contiguous.values())}
    assert coco_category_ids(COCO_80[::-1])[0] == 90
    assert coco_category_ids(COCO_80[1:]) == coco_category_ids([*COCO_80, "disc"]) == {}


def _entries(ids: Any, source: str, label: int) -> list[dict[str, Any]]:
    found = Detections(
        xyxy=np.array([[1, 2, 11, 22]], np.float32),
        confidence=np.array([0.9], np.float32),
        class_id=np.array([label], np.int32),
    )
    return [entry for _, entry in ids.entries(source, 5, (100, 200), found)]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["000042.png", "7.png"], {"000042.png": 42, "7.png": 7}),
        (["1.png", "a.png"], {}),  # 1 would be the index of a.png
        (["1/5.png", "2/5.png"], {}),
        (["5.png", "05.png"], {}),
    ],
)
def test_images_of_coco_have_the_number_in_their_name(
    names: list[str], numbers: dict[str, int]
) -> None:
    ids = ids_of_coco(COCO_80, [Path(name) for name in names], FILE)
    assert {source: image.image_id for source, image in ids.images.items()} == numbers
    assert bool(ids.lines) == (not numbers)
    for name in names:
        (entry,) = _entries(ids, name, 11)
        assert entry["category_id"] == 13 and entry["bbox"] == [1, 2, 10, 20]
        if numbers:
            assert entry["image_id"] == numbers[name]
        else:
            assert "image_id" not in entry
            assert (entry["image_index"], entry["file_name"]) == (5, Path(name).name)
    assert _entries(ids_of_coco(COCO_91, [], FILE), "a", 12) == []  # N/A is no category


def test_other_classes_have_no_id_but_an_index() -> None:
    ids = ids_of_coco(("disc", "ring"), [Path("7.png")], FILE)
    (entry,) = _entries(ids, "7.png", 1)
    assert list(entry) == [
        "image_index", "file_name", "class_index", "class_name", "bbox", "score",
    ]  # fmt: skip
    assert (entry["class_index"], entry["class_name"]) == (1, "ring")
    assert ids.lines == [
        "r.json has image_index and class_index, which pycocotools does not take; `annotations` "
        "gives it the ids of a COCO file"
    ]


def _annotated(folder: Path, *names: str, **size: int) -> Path:
    document = {
        "images": [
            {"id": 100 + i, "file_name": name, "height": 96, "width": 128, **size}
            for i, name in enumerate(names)
        ],
        "categories": [{"id": 9, "name": "ring"}, {"id": 4, "name": "Disc"}],
        "annotations": [
            {"id": i, "image_id": 100 + i, "category_id": 4, "bbox": [9, 9, 40, 40],
             "area": 1600, "iscrowd": 0}
            for i in range(len(names))
        ],
    }  # fmt: skip
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return path


def test_the_ids_of_annotations(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", "a.png", "b/a.png", "c.png")
    path = _annotated(tmp_path, "x\\b\\a.png", "C.PNG", "elsewhere.png")
    ids = ids_of_annotations(("disc", "square", "ring"), path, sorted(folder.rglob("*.png")))
    sources = {str(p.relative_to(folder)): str(p) for p in folder.rglob("*.png")}
    assert {s: ids.images[s].image_id for s in sources.values() if s in ids.images} == {
        sources["b/a.png"]: 100, sources["c.png"]: 101,
    }  # fmt: skip
    assert ids.lacks_image(sources["a.png"]) and not ids.lacks_image(sources["c.png"])
    assert ids.category == {0: 4, 2: 9}
    assert ids.lines[0] == "2 of the 3 images have an id in instances.json"
    (entry,) = _entries(ids, sources["c.png"], 0)
    assert (entry["image_id"], entry["category_id"]) == (101, 4)
    assert _entries(ids, sources["c.png"], 1) == []


def test_boxes_come_in_pixels_of_the_annotations(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", "a.png")
    assert cv2.imwrite(str(folder / "a.png"), make_picture(0, 192, 256))
    ids = ids_of_annotations(("disc",), _annotated(tmp_path, "a.png"), [folder / "a.png"])
    found = Detections(
        xyxy=np.array([[2, 4, 22, 44]], np.float32),
        confidence=np.array([0.9], np.float32),
        class_id=np.array([0], np.int32),
    )
    ((_, entry),) = ids.entries(str(folder / "a.png"), 0, (192, 256), found)
    assert entry["bbox"] == [1, 2, 10, 20]


def test_annotations_of_other_images_are_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", "a.png")
    with pytest.raises(BadInput, match=r"none of the 1 images of .* can be used"):
        ids_of_annotations(("disc",), _annotated(tmp_path, "b.png"), [folder / "a.png"])


def test_a_list_of_images_alone_gives_ids(tmp_path: Path) -> None:
    """COCO's file of its test set has no list `annotations`."""
    folder = write_images(tmp_path / "in", "a.png")
    path = _annotated(tmp_path, "a.png")
    document = json.loads(path.read_text())
    del document["annotations"]
    path.write_text(json.dumps(document))
    ids = ids_of_annotations(("disc",), path, [folder / "a.png"])
    assert ids.images[str(folder / "a.png")].image_id == 100


def test_detect_and_eval_write_the_same_and_pycocotools_takes_both(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    """Seen: class indices and file order as ids, which pycocotools refuses, or takes as others."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    path = _annotated(tmp_path, "0.png", "1.png", "2.png")
    detected, saved = tmp_path / "detected.json", tmp_path / "saved.json"
    given = ("--annotations", path)
    ran = retinart(
        "detect", model_path, images, "--out", tmp_path / "out", "--coco", detected, *given
    )
    assert ran.returncode == 0
    assert "3 of the 3 images have an id in instances.json\n" in ran.stderr
    assert "detections without a category id (left out of the COCO results): square" in ran.stderr
    ran = retinart(
        "eval", model_path, "--images", images, *given, "--save-results", saved, "--json"
    )
    assert ran.returncode == 0
    assert json.loads(detected.read_text()) == json.loads(saved.read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        results = COCO(str(path)).loadRes(str(detected))
    assert set(results.getImgIds()) == {100, 101, 102} and set(results.catToImgs) == {4, 9}


def test_what_cannot_have_ids_is_refused(
    retinart: Command, model_path: Path, images: Path, video: Path, tmp_path: Path
) -> None:
    path, out = _annotated(tmp_path, "0.png"), ("--out", tmp_path / "out")
    coco = ("--coco", tmp_path / "r.json")
    for arguments, message in (
        ((images, "--annotations", path), "--annotations gives ids to COCO results"),
        ((images, *coco, "--annotations", tmp_path / "no.json"), "there is no file"),
        ((video, *coco, "--annotations", path), "cannot give ids to videos"),
        ((images, "--coco", path, "--annotations", path), "would overwrite its source"),
    ):
        ran = retinart("detect", model_path, *arguments, *out)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    for more, message in (
        (("--save-results", path), "--save-results would overwrite"),
        (("--save-results", tmp_path / "r.json", "--against", model_path), "is for one model"),
    ):
        ran = retinart("eval", model_path, "--images", images, "--annotations", path, *more)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
