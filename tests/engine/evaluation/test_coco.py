"""COCO files: what load_coco reads, what it drops and reports, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.boxes import MISSED
from retinart.engine.evaluation.coco import CocoDataset, load_coco


def _document() -> dict[str, Any]:
    return {
        "images": [
            {"id": 5, "file_name": "a.jpg", "height": 100, "width": 200},
            {"id": 3, "file_name": "b.jpg", "height": 50, "width": 60},
        ],
        "annotations": [
            _box(1, 5, [10, 20, 30, 40]),
            _box(2, 5, [0, 0, 200, 100], category_id=9, iscrowd=1),
        ],
        "categories": [{"id": 9, "name": "pear"}, {"id": 2, "name": "apple"}],
    }


def _box(key: int, image_id: int, bbox: Any, **more: Any) -> dict[str, Any]:
    return {"id": key, "image_id": image_id, "category_id": 2, "bbox": bbox, "iscrowd": 0, **more}


def _load(folder: Path, document: Any, files: tuple[str, ...] = ("a.jpg", "b.jpg")) -> CocoDataset:
    (folder / "images").mkdir(exist_ok=True)
    for name in files:
        (folder / "images" / name).touch()
    path = folder / "instances.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return load_coco(path, folder / "images")


def test_a_clean_file(tmp_path: Path) -> None:
    dataset = _load(tmp_path, _document())
    assert dataset.problems == ()
    assert dataset.classes == ("apple", "pear")
    assert dataset.category_ids == (2, 9)
    first, second = dataset.images
    assert (first.image_id, first.height, first.width) == (5, 100, 200)
    assert first.path == tmp_path / "images" / "a.jpg"
    np.testing.assert_array_equal(first.boxes, [[10, 20, 40, 60], [0, 0, 200, 100]])
    assert first.boxes.dtype == np.float32
    assert first.labels.dtype == np.int64
    assert first.labels.tolist() == [0, 1]
    assert first.crowd.tolist() == [False, True]
    assert second.boxes.shape == (0, 4)
    assert dataset.summary() == ["instances.json: 2 images (1 without objects), 2 boxes, 2 classes"]


@pytest.mark.parametrize(
    ("change", "line", "boxes"),
    [
        (_box(7, 5, [1, 1, 0, 9]), f"1 zero-area boxes ({MISSED}): annotation 7", 2),
        (
            _box(7, 5, [1, 1, 9, -1]),
            "1 boxes with a negative side (their corners are sorted): annotation 7",
            3,
        ),
        (
            _box(7, 5, [1, 1, 9, -9]),
            "1 boxes with a negative side that point out of their image (dropped): annotation 7",
            2,
        ),
        (_box(7, 5, [200, 1, 9, 9]), f"1 boxes outside of their image ({MISSED}): annotation 7", 2),
        (_box(7, 5, [-9, -9, 9, 9]), f"1 boxes outside of their image ({MISSED}): annotation 7", 2),
        (
            _box(7, 5, [190, 90, 20, 20]),
            "1 boxes partly outside of their image (clipped in training; as they are in eval): "
            "annotation 7",
            3,
        ),
        (
            _box(7, 5, [1, 1, 9]),
            "1 annotations without a box of four numbers (dropped): annotation 7",
            2,
        ),
        (
            _box(7, 5, [1, 1, 9, float("nan")]),
            "1 annotations without a box of four numbers (dropped): annotation 7",
            2,
        ),
        (
            _box(7, 5, [1, 1, 9, 9], category_id=4),
            "1 unknown categories (boxes dropped): 4 of annotation 7",
            2,
        ),
        (_box(7, 5, [1, 1, 0.5, 0.5]), "1 boxes smaller than a pixel (kept): annotation 7", 3),
        (
            _box(7, 5, [10, 20, 30, 40]),
            "1 objects that are listed twice (learned once; in eval each counts): annotation 7",
            3,
        ),
        (
            _box(7, 5, [1, 1, 9, 9], area=0),
            "1 areas of 0 of boxes that have one (kept: the objects count as small): annotation 7",
            3,
        ),
        (_box(7, 6, [1, 1, 9, 9]), "1 unknown image ids (boxes dropped): 6 of annotation 7", 2),
        (
            _box(1, 5, [1, 1, 9, 9]),
            "1 annotation ids that repeat (kept: these ids count for nothing): annotation 1",
            3,
        ),
    ],
)
def test_a_bad_annotation_is_named(
    tmp_path: Path, change: dict[str, Any], line: str, boxes: int
) -> None:
    document = _document()
    document["annotations"].append(change)
    dataset = _load(tmp_path, document)
    assert [str(p) for p in dataset.problems] == [line]
    assert dataset.summary()[1:] == [line]
    assert sum(len(image.boxes) for image in dataset.images) == boxes
    for image in dataset.images:
        assert (image.boxes >= 0).all()
        assert (image.boxes <= [image.width, image.height] * 2).all()


def test_a_fraction_of_a_pixel_outside_is_clipped_without_a_word(tmp_path: Path) -> None:
    document = _document()
    document["annotations"][0]["bbox"] = [-0.4, 20, 200.9, 40]
    dataset = _load(tmp_path, document)
    assert dataset.problems == ()
    np.testing.assert_array_equal(dataset.images[0].boxes[0], [0, 20, 200, 60])


def test_accents_may_be_letters_of_their_own(tmp_path: Path) -> None:
    """As macOS and some archives write them."""
    document = _document()
    document["images"][0]["file_name"] = "cafe\u0301.jpg"
    dataset = _load(tmp_path, document, files=("caf\u00e9.jpg", "b.jpg"))
    assert [i.path.name for i in dataset.images] == ["caf\u00e9.jpg", "b.jpg"]
    (problem,) = dataset.problems
    assert "1 file names of another folder or spelling" in str(problem)


def test_a_missing_image_is_dropped_with_its_boxes(tmp_path: Path) -> None:
    dataset = _load(tmp_path, _document(), files=("b.jpg",))
    assert [str(p) for p in dataset.problems] == ["1 missing image files (images dropped): a.jpg"]
    assert [i.image_id for i in dataset.images] == [3]
    assert dataset.num_boxes == 0


def test_repeated_images_and_categories(tmp_path: Path) -> None:
    document = _document()
    document["images"].append({**document["images"][0], "id": 5.0})
    document["categories"].append({"id": "2", "name": "apple"})
    dataset = _load(tmp_path, document)
    assert [str(p) for p in dataset.problems] == [
        "1 entries that repeat a category (the first counts): id 2",
        "1 entries that repeat an image (the first counts): id 5",
    ]
    assert dataset.classes == ("apple", "pear")
    assert dataset.images[0].path.name == "a.jpg"


def test_many_problems_are_one_line_with_a_few_examples(tmp_path: Path) -> None:
    document = _document()
    document["annotations"] += [_box(100 + i, 5, [1, i, 0, 0]) for i in range(50)]
    (problem,) = _load(tmp_path, document).problems
    assert problem.count == 50
    assert str(problem) == (
        f"50 zero-area boxes ({MISSED}): annotation 100, annotation 101, annotation 102, ..."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"cannot read the annotations .* not JSON or was cut off"),
        ('{"images": [{"id": 1', r"cannot read the annotations .* cut off"),
        ("[1, 2]", r"is not a COCO instances file: it is a list, and .* 'images'\. Give a COCO"),
        ({"images": [], "categories": []}, r"it has no list 'annotations'"),
        ({"images": [], "annotations": [], "categories": [3]}, "is not an object"),
        ({"images": [], "annotations": [], "categories": []}, "lists no categories"),
        ({**_document(), "images": []}, "lists no images"),
        ({**_document(), "images": [{"file_name": "a.jpg"}]}, "image number 0 has no id"),
    ],
)
def test_what_is_no_coco_file_stops(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        _load(tmp_path, content)


def test_no_image_at_all_stops(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"none of the 2 images .* 2 missing image files.*Give the f"
    ):
        _load(tmp_path, _document(), files=())


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read the annotations .*No such file.*Check the pa"):
        load_coco(tmp_path / "none.json", tmp_path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(BadInput, match="cannot read the annotations"):
        load_coco(path, tmp_path)
