"""`retinart data check`: what is wrong with a dataset, and whether anchors fit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retinart.cli import main
from retinart.engine.errors import BadInput
from retinart.engine.model.variant import Variant
from retinart.train.data.batches import Batches
from retinart.train.data.check import load_checked
from retinart.train.data.report import best_anchor_iou, describe_dataset
from retinart.train.data.rule import training_rule
from retinart.train.data.settings import NO_AUGMENTATION
from retinart.train.model.boxes import box_iou
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import variant_anchors
from support import make_picture, write_images

TWICE = "1 objects that are listed twice (learned once; in eval each counts): annotation 3"
GOOD = [10.0, 20.0, 50.0, 40.0]  # x, y, width, height


def _dataset(
    folder: Path, boxes: list[dict[str, Any]], *, names: tuple[str, ...] = ("cell", "dot")
) -> tuple[Path, Path]:
    """Three images of 96x128, two of them with a box of either class, and these boxes more."""
    write_images(folder / "images", "a.png", "b.png", "c.png")
    given = [
        {"image_id": 1, "category_id": 1, "bbox": GOOD},
        {"image_id": 2, "category_id": 2, "bbox": GOOD},
        *boxes,
    ]
    document = {
        "images": [
            {"id": i, "file_name": name, "height": 96, "width": 128}
            for i, name in enumerate(("a.png", "b.png", "c.png"), 1)
        ],
        "annotations": [{"id": i, **box} for i, box in enumerate(given, 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return path, folder / "images"


def _box(bbox: list[float], label: int = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": label, "bbox": bbox, **more}


@pytest.mark.parametrize(
    ("boxes", "line"),
    [
        ([], None),
        ([_box(GOOD)], TWICE),
        ([_box(GOOD, 2)], "1 boxes with two classes (kept, the first is learned): cell in a.png"),
        (
            [_box([10, 20, 50, 41])],
            "1 pairs of boxes that nearly coincide (IoU from 0.9 on) (both kept): cell in a.png",
        ),
        ([_box([10, 20, 50, 41], 2)], None),
        ([_box([10, 20, 50, 60])], None),
        ([_box(GOOD, iscrowd=1)], None),
    ],
)
def test_boxes_are_compared_within_an_image(
    tmp_path: Path, boxes: list[dict[str, Any]], line: str | None
) -> None:
    dataset = load_checked(*_dataset(tmp_path, boxes))
    assert [str(p) for p in dataset.problems] == ([line] if line else [])
    assert dataset.num_boxes == 2 + len(boxes)


def test_classes_without_objects_and_with_one_name(tmp_path: Path) -> None:
    boxes = [_box([60, 60, 9, 9], 3, iscrowd=1)]
    dataset = load_checked(*_dataset(tmp_path, boxes, names=("cell", "dot", "cell")))
    assert [str(p) for p in dataset.problems] == [
        "1 classes without objects (kept, and cannot be learned): cell",
        "1 names of several categories (kept as classes of their own): cell",
    ]


def test_images_that_cannot_be_read_or_have_another_size(tmp_path: Path) -> None:
    learned = {"image_id": 3, "category_id": 2, "bbox": GOOD}
    annotations, images = _dataset(tmp_path, [_box([1, 1, 0, 9]), learned])
    (images / "a.png").write_bytes(b"no image")
    cv2.imwrite(str(images / "b.png"), make_picture(1, 128, 96))
    cv2.imwrite(str(images / "c.png"), make_picture(1, 48, 64))
    dataset = load_checked(annotations, images)
    assert [str(p) for p in dataset.problems] == [
        "1 images turned against their annotations, as by EXIF (dropped): "
        "b.png (96x128, annotated 128x96)",
        "1 images of another size than annotated (boxes and image are scaled to each other): "
        "c.png (64x48, annotated 128x96)",
        "1 zero-area boxes (not learned; counted as missed in eval): annotation 3",
        "1 unreadable images (dropped): a.png (it is truncated or no image format)",
        "1 classes without objects (kept, and cannot be learned): cell",  # it was in a.png alone
    ]
    assert [image.path.name for image in dataset.images] == ["c.png"]
    unopened = load_checked(annotations, images, open_images=False)
    assert [image.path.name for image in unopened.images] == ["a.png", "c.png"]
    assert len(unopened.problems) == 3


def test_an_image_turned_against_its_boxes_is_not_trained_on(tmp_path: Path) -> None:
    """As cameras write it: the pixels lie, and an EXIF entry asks to turn them."""
    annotations, images = _dataset(tmp_path, [])
    path = images / "b.jpg"
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    _, data = cv2.imencode(".jpg", make_picture(1, 96, 128))
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    path.write_bytes(data.tobytes()[:2] + segment + data.tobytes()[2:])
    annotations.write_text(annotations.read_text().replace("b.png", "b.jpg"))
    dataset = load_checked(annotations, images)
    assert [image.path.name for image in dataset.images] == ["a.png", "c.png"]
    assert str(dataset.problems[0]) == (
        "1 images turned against their annotations, as by EXIF (dropped): "
        "b.jpg (96x128, annotated 128x96)"
    )
    assert len(load_checked(annotations, images, open_images=False).images) == 2
    rule = training_rule(preset("tiny", 2), (96, 128))
    batches = Batches(dataset, rule=rule, batch_size=2, seed=0, augmentation=NO_AUGMENTATION)
    assert cv2.imwrite(str(images / "a.png"), make_picture(1, 128, 96))
    with pytest.raises(BadInput, match=r"a\.png is turned .* changed after the training began"):
        batches[0]


def test_what_cannot_be_learned_stops(tmp_path: Path) -> None:
    annotations, images = _dataset(tmp_path, [])
    document = json.loads(annotations.read_text())
    for box in document["annotations"]:
        box["iscrowd"] = 1
    annotations.write_text(json.dumps(document))
    with pytest.raises(
        BadInput, match=r"no object to learn: .*classes without objects.*Check that"
    ):
        load_checked(annotations, images)
    for path in images.iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadInput, match=r"none of the images .* can be used.*3 unreadable images"):
        load_checked(annotations, images)


@pytest.mark.parametrize(
    "variant",
    [
        preset("tiny", 1),
        Variant(source="x", backbone="resnet18", num_classes=1, anchor_center=0.5,
                anchor_strides="image//grid", anchor_rounding=True),
    ],
    ids=["tiny", "other conventions"],
)  # fmt: skip
def test_the_best_anchor_is_the_best_of_all(variant: Variant) -> None:
    size = (96, 160)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 90, (200, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 70, (200, 2))], axis=1).astype(np.float32)
    anchors = torch.from_numpy(np.concatenate(variant_anchors(variant, size)))
    expected = box_iou(torch.from_numpy(boxes), anchors).amax(dim=1)
    assert 0 < (expected < 0.5).sum() < 150
    best = best_anchor_iou(boxes, variant, size)
    np.testing.assert_allclose(best, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_the_report_counts_and_measures(tmp_path: Path) -> None:
    boxes = [_box([0, 0, 4, 4]), _box([0, 0, 128, 96], 2), _box([0, 0, 90, 90], iscrowd=1)]
    dataset = load_checked(*_dataset(tmp_path, boxes))
    report = describe_dataset(dataset, preset("tiny", 2), (192, 256))
    assert (report["images"], report["images_without_objects"]) == (3, 1)
    assert (report["boxes"], report["crowds"]) == (4, 1)
    assert [(c["name"], c["boxes"], c["images"]) for c in report["classes"]] == [
        ("cell", 2, 1), ("dot", 2, 2),
    ]  # fmt: skip
    assert report["sizes"] == {"small": 1, "medium": 2, "large": 1}
    assert report["side"]["min"] == 4
    assert report["side_at_input"]["min"] == 8  # an input twice as large
    assert report["height_over_width"]["max"] == 1
    assert report["anchors"]["covered_by_size"] == {"small": 0.0, "medium": 1.0, "large": 1.0}
    assert report["anchors"]["covered"] == 0.75
    json.dumps(report)


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["data", "check", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations, images = _dataset(tmp_path, [_box(GOOD)])
    given = ("--annotations", annotations, "--images", images)
    code, out, _ = _run(capsys, *given)
    assert code == 0
    assert out.startswith("instances.json: 3 images (1 without objects), 3 boxes, 2 classes\n")
    assert f"{TWICE}\n" in out
    assert "100.0% of the boxes have an anchor of tiny at 256x320 with an IoU of 0.5" in out
    assert out.endswith("nothing stops training\n")
    code, out, _ = _run(capsys, *given, "--json")
    report = json.loads(out)
    assert (code, report["stops"], report["boxes"]) == (0, None, 3)
    assert report["problems"][0]["count"] == 1


def test_the_command_exits_1_when_training_would_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, images = _dataset(tmp_path, [])
    for path in images.iterdir():
        path.unlink()
    given = ("--annotations", annotations, "--images", images)
    code, out, _ = _run(capsys, *given)
    assert code == 1
    assert out.startswith("training would stop: none of the 3 images")
    assert "3 missing image files" in out
    code, out, _ = _run(capsys, *given, "--json")
    assert code == 1
    assert "missing image files" in json.loads(out)["stops"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--annotations", "none.json"), "there is no none.json"),
        (("--model", "resnet9"), "unknown model 'resnet9'"),
        (("--height", "100"), "the network's input cannot be 100x320 pixels"),
    ],
)
def test_wrong_arguments_are_no_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], message: str
) -> None:
    annotations, images = _dataset(tmp_path, [])
    code, out, err = _run(capsys, "--annotations", annotations, "--images", images, *arguments)
    assert (code, out) == (2, "")
    assert message in err
