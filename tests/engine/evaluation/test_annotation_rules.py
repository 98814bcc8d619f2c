"""Annotations as other programs write them: what is read, what is left out and said, what stops.

A detector finds most of the objects, so that a box which is read wrongly changes AP.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from made_annotations import CLASSES, HEIGHT, READ, STOPPED, WIDTH, made_boxes, plain_annotations

from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.evaluate import Evaluation, check_evaluation, evaluate
from retinart.engine.media.images import Image

pytest.importorskip("pycocotools")


class _Detector:
    """Finds the objects a few pixels off, and not all of them. The first pixel is the image's."""

    classes = CLASSES

    def __call__(self, image: Image, /, **more: object) -> Detections:
        number = int(image[0, 0, 0])
        rng = np.random.default_rng(100 + number)
        boxes = np.array(made_boxes(number), np.float32)
        boxes[:, 2:] += boxes[:, :2]
        scale = np.array([image.shape[1] / WIDTH, image.shape[0] / HEIGHT] * 2, np.float32)
        boxes = (boxes + rng.normal(0, 3, (4, 4)).astype(np.float32)) * scale
        found = rng.uniform(size=4) < 0.9
        score = np.sort(rng.uniform(0.1, 1, 4).astype(np.float32))[::-1]
        label = np.array([(number + k) % 3 for k in range(4)], np.int32)
        return Detections(xyxy=boxes[found], confidence=score[found], class_id=label[found])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(1, 13):
        picture = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
        assert cv2.imwrite(str(folder / f"Pic_{number}.png"), picture)
    return folder


def _evaluate(document: Any, images: Path, folder: Path) -> Evaluation:
    path = folder / "made.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return evaluate(_Detector(), path, images, quiet=True)


@pytest.fixture(scope="module")
def right(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """What the file gives as it is."""
    found = _evaluate(plain_annotations(), images, tmp_path_factory.mktemp("plain"))
    assert 0.3 < found.ap < 0.8 and found.problems[1:] == ()
    return found


@pytest.mark.parametrize("case", READ)
def test_the_figures_are_those_of_the_plain_file(
    case: str, images: Path, right: Evaluation, tmp_path: Path
) -> None:
    change, line = READ[case]
    document = plain_annotations()
    given = change(document)
    found = _evaluate(given if isinstance(given, bytes) else document, images, tmp_path)
    assert (found.ap, found.figures["AP50"]) == (right.ap, right.figures["AP50"])
    assert found.images == 12
    said = [text.partition(": ")[0] if text[0].isdigit() else text for text in found.problems[1:]]
    if line is None:
        assert said == []
    else:
        assert any(text.startswith(line.partition(": ")[0]) for text in said), found.problems
        assert line in "\n".join(found.problems)


@pytest.mark.parametrize("case", STOPPED)
def test_what_would_make_the_figure_meaningless_stops(
    case: str, images: Path, tmp_path: Path
) -> None:
    change, message = STOPPED[case]
    document = plain_annotations()
    given = change(document)
    with pytest.raises(BadInput, match=message):
        _evaluate(given if isinstance(given, bytes) else document, images, tmp_path)


def test_what_is_left_out_is_counted(images: Path, tmp_path: Path, right: Evaluation) -> None:
    document = plain_annotations()
    kept = document["annotations"]
    document["annotations"] = [
        *kept,
        {**kept[0], "bbox": [1, 2, 3]},
        {**kept[0], "bbox": [1, 2, float("inf"), 4]},
        {**kept[0], "image_id": 1.5},
        {**kept[0], "image_id": 77},
        {**kept[0], "category_id": "blob"},
    ]
    found = _evaluate(document, images, tmp_path)
    assert found.ap == right.ap
    assert [line.partition(":")[0] for line in found.problems[1:]] == [
        "5 annotation ids that repeat (kept",
        "1 unknown image ids (boxes dropped)",
        "1 unknown categories (boxes dropped)",
        "2 annotations without a box of four numbers (dropped)",
        "1 annotations without an image id (dropped)",
    ]


def test_boxes_in_one_quarter_are_pointed_out(images: Path, tmp_path: Path) -> None:
    document = plain_annotations()
    for entry in document["annotations"]:
        entry["bbox"] = [v / 2 for v in entry["bbox"]]
    found = _evaluate(document, images, tmp_path)
    assert "48 boxes, which is all, in the upper left quarter" in found.problems[1]


def test_one_file_under_two_ids_is_said(images: Path, tmp_path: Path) -> None:
    document = plain_annotations()
    document["images"].append({**document["images"][0], "id": 99})
    found = _evaluate(document, images, tmp_path)
    assert found.problems[1] == (
        "1 image files with several ids (each id counts as an image of its own): Pic_1.png"
    )


def test_a_name_that_is_there_goes_before_one_that_ends_alike(images: Path, tmp_path: Path) -> None:
    document = plain_annotations()
    document["images"].insert(0, {**document["images"][0], "id": 99, "file_name": "b/Pic_1.png"})
    found = _evaluate(document, images, tmp_path)
    assert found.problems[1] == "1 missing image files (images dropped): b/Pic_1.png"
    assert (found.images, found.listed) == (12, 13)


def test_classes_that_no_object_has_are_not_enough(images: Path, tmp_path: Path) -> None:
    document = plain_annotations()
    document["categories"] = [{"id": c, "name": f"x{c}"} for c in (1, 2, 3)]
    document["categories"].append({"id": 4, "name": "cell"})
    with pytest.raises(BadInput, match=r"knows none of .* the objects are x1, x2, x3"):
        _evaluate(document, images, tmp_path)


def _turn_by_exif(path: Path, orientation: int) -> None:
    """Write a picture as JPEG with an EXIF entry that turns it."""
    picture = cv2.imread(str(path))
    assert picture is not None
    _, data = cv2.imencode(".jpg", picture)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0%c\0\0\0\0\0\0\0" % orientation
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    path.with_suffix(".jpg").write_bytes(data.tobytes()[:2] + segment + data.tobytes()[2:])


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("turned", [12, 3], ids=["all", "some"])
def test_images_turned_by_exif_are_refused_as_training_does(
    orientation: int, turned: int, tmp_path: Path
) -> None:
    """Seen: boxes of the unturned images, AP 0.1, and a line about sizes."""
    document = plain_annotations()
    for number in range(1, 13):
        picture = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
        assert cv2.imwrite(str(tmp_path / f"Pic_{number}.png"), picture)
    for entry in document["images"][:turned]:
        _turn_by_exif(tmp_path / entry["file_name"], orientation)
        entry["file_name"] = entry["file_name"].replace(".png", ".jpg")
    line = rf"{turned} images turned against their annotations, as by EXIF \(dropped\): Pic_1\.jpg"
    if turned == 12:
        with pytest.raises(BadInput, match=rf"none of the 12 images .* can be used: .*{line}"):
            _evaluate(document, tmp_path, tmp_path)
        with pytest.raises(BadInput, match=line):
            check_evaluation(CLASSES, tmp_path / "made.json", tmp_path)
        with pytest.raises(BadInput, match=line):
            load_coco(tmp_path / "made.json", tmp_path)
        for entry in document["images"]:  # without sizes nothing says which way, either
            del entry["height"], entry["width"]
        with pytest.raises(BadInput, match=r"12 images that EXIF turns, without height and width"):
            _evaluate(document, tmp_path, tmp_path)
    else:
        found = _evaluate(document, tmp_path, tmp_path)
        assert found.images == 9 and found.problems[1].startswith("3 images turned against")


def test_images_turned_within_their_size_are_named(tmp_path: Path) -> None:
    document = plain_annotations()
    for number in range(1, 13):
        picture = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
        assert cv2.imwrite(str(tmp_path / f"Pic_{number}.png"), picture)
    _turn_by_exif(tmp_path / "Pic_1.png", 3)
    document["images"][0]["file_name"] = "Pic_1.jpg"
    found = _evaluate(document, tmp_path, tmp_path)
    assert found.problems[1] == (
        "1 images that EXIF turns or mirrors within their size "
        "(boxes are taken as of the image that is shown): Pic_1.jpg"
    )
