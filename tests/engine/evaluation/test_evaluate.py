"""COCO accuracy: evaluate gives pycocotools' figures on the cleaned data."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput, pip_command
from retinart.engine.evaluation.coco import CocoDataset, load_coco
from retinart.engine.evaluation.coco_figures import FIGURES, coco_figures
from retinart.engine.evaluation.coco_json import Id
from retinart.engine.evaluation.evaluate import ABOVE_SIZES, evaluate, figures_table
from retinart.engine.evaluation.results import coco_result
from retinart.engine.media.images import Image

pytest.importorskip("pycocotools")

SIZES = (20, 60, 120)  # sides of objects that COCO calls small, medium and large


def _document(images: int = 4) -> dict[str, Any]:
    """Each image has one object of each size. Object k has category k."""
    boxes = [(10 + 130 * k, 10, side, side) for k, side in enumerate(SIZES)]
    return {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "height": 160, "width": 400}
            for i in range(images)
        ],
        "categories": [{"id": c, "name": n} for c, n in ((7, "ring"), (3, "disc"), (5, "Square"))],
        "annotations": [
            {
                "id": 100 * i + k + 1,
                "image_id": 10 + i,
                "category_id": (3, 5, 7)[k],
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for i in range(images)
            for k, box in enumerate(boxes)
        ],
    }


def _write(folder: Path, document: dict[str, Any]) -> tuple[Path, Path]:
    """Write the annotations and the images. The first pixel of an image holds its number."""
    (folder / "images").mkdir()
    for number, entry in enumerate(document["images"]):
        image = np.full((160, 400, 3), number, np.uint8)
        assert cv2.imwrite(str(folder / "images" / entry["file_name"]), image)
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return path, folder / "images"


class _Known:
    """A detector that returns a given answer for each image."""

    def __init__(self, classes: Sequence[str], answers: Sequence[Detections]) -> None:
        self.classes, self.answers = tuple(classes), answers

    def __call__(self, image: Image, **more: Any) -> Detections:
        return self.answers[int(image[0, 0, 0])]


def _detections(rows: Sequence[tuple[Sequence[float], float, int]]) -> Detections:
    rows = sorted(rows, key=lambda row: -row[1])
    return Detections(
        xyxy=np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        confidence=np.array([r[1] for r in rows], np.float32),
        class_id=np.array([r[2] for r in rows], np.int32),
    )


def _perfect(dataset: CocoDataset, classes: Sequence[str]) -> Any:
    """A detector that returns the annotations. Its classes may have another order."""
    lower = [name.lower() for name in classes]
    label = [lower.index(name.lower()) for name in dataset.classes]
    return _Known(
        classes,
        [
            _detections([(b, 0.9, label[k]) for b, k in zip(i.boxes, i.labels, strict=True)])
            for i in dataset.images
        ],
    )


def test_perfect_detections(tmp_path: Path) -> None:
    path, images = _write(tmp_path, _document())
    detector = _perfect(load_coco(path, images), ("square", "other", "ring", "disc"))
    result = evaluate(detector, path, images)
    assert tuple(result.figures) == FIGURES
    assert all(value == pytest.approx(1.0) for value in result.figures.values())
    assert result.per_class == pytest.approx({"disc": 1.0, "Square": 1.0, "ring": 1.0})
    assert (result.images, result.skipped) == (4, ())
    assert result.problems == ("instances.json: 4 images (0 without objects), 12 boxes, 3 classes",)
    text = figures_table(result)
    assert "AP         100.0" in text and "AP by class (4 images)" in text
    assert "Square  100.0" in text


def test_no_detections(tmp_path: Path) -> None:
    path, images = _write(tmp_path, _document())
    nothing: Any = _Known(("disc", "square", "ring"), [_detections([])] * 4)
    result = evaluate(nothing, path, images)
    assert set(result.figures.values()) == {0.0}
    assert set(result.per_class.values()) == {0.0}


def test_wrong_classes_are_misses(tmp_path: Path) -> None:
    path, images = _write(tmp_path, _document())
    detector = _perfect(load_coco(path, images), ("disc", "square", "ring"))
    detector.classes = ("square", "ring", "disc")
    assert evaluate(detector, path, images).figures["AP"] == 0.0


def test_half_of_the_objects(tmp_path: Path) -> None:
    """Every second object of a class is found: precision is 1 up to recall 1/2."""
    path, images = _write(tmp_path, _document())
    detector = _perfect(load_coco(path, images), ("disc", "square", "ring"))
    detector.answers[1:4:2] = [_detections([])] * 2
    result = evaluate(detector, path, images)
    assert result.figures["AP"] == pytest.approx(51 / 101)  # 101 recall levels, 0 to 0.5
    assert result.figures["AR_100"] == pytest.approx(0.5)


def test_ap_above_that_of_every_size_is_explained(tmp_path: Path) -> None:
    """Seen: AP 41.5, and each size below it. Each size counts the classes that have it."""
    document = _document()
    sides = {3: (20,), 5: (60,), 7: (20, 60)}  # disc is small, Square medium, ring both
    document["annotations"] = [
        {**one, "bbox": [9, 9, side, side], "area": side * side, "id": 10 * one["id"] + side}
        for one in document["annotations"]
        for side in sides[one["category_id"]]
    ]
    path, images = _write(tmp_path, document)
    detector = _perfect(load_coco(path, images), ("disc", "square", "ring"))
    assert ABOVE_SIZES not in figures_table(evaluate(detector, path, images))  # all are 100
    detector.answers = [found[found.class_id != 2] for found in detector.answers]
    result = evaluate(detector, path, images)
    assert result.figures["AP"] == pytest.approx(2 / 3)
    assert result.figures["AP_small"] == result.figures["AP_medium"] == pytest.approx(0.5)
    assert result.figures["AP_large"] is None and ABOVE_SIZES in figures_table(result)


def test_sizes_that_are_not_annotated_have_no_figure(tmp_path: Path) -> None:
    document = _document()
    document["annotations"] = [a for a in document["annotations"] if a["category_id"] == 3]
    path, images = _write(tmp_path, document)
    dataset = load_coco(path, images)
    result = evaluate(_perfect(dataset, ("disc", "square", "ring")), path, images)
    assert result.figures["AP_small"] == pytest.approx(1.0)
    assert result.figures["AP_large"] is None and result.figures["AR_medium"] is None
    assert result.per_class == {"disc": pytest.approx(1.0), "Square": None, "ring": None}
    assert "AP_large       -" in figures_table(result) and json.dumps(result.to_json())


@pytest.mark.parametrize(("crowd", "ap"), [(1, 1.0), (0, 0.5)])
def test_crowds_are_neither_hit_nor_miss(tmp_path: Path, crowd: int, ap: float) -> None:
    """Detections within a region score above the hit. They are errors unless it is a crowd."""
    document = _document(1)
    document["annotations"] = document["annotations"][:1]
    region = {"id": 9, "image_id": 10, "category_id": 3, "bbox": [200, 0, 160, 160]}
    document["annotations"].append({**region, "area": 25600, "iscrowd": crowd})
    path, images = _write(tmp_path, document)
    found = _detections(
        [((10, 10, 30, 30), 0.5, 0)]
        + [((210 + 30 * i, 9, 230 + 30 * i, 29), 0.9, 0) for i in (0, 1)]
    )
    detector: Any = _Known(("disc",), [found])
    result = evaluate(detector, path, images)
    assert result.figures["AP50"] is not None
    if crowd:
        assert result.figures["AP"] == pytest.approx(ap)
    else:
        assert result.figures["AP50"] < ap


def test_pycocotools_on_the_raw_file_says_the_same(
    shared: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the 72 images in eight parts here, and in one for `direct`."""
    monkeypatch.setattr("retinart.engine.evaluation.coco_figures._TOGETHER", 10)
    annotations = shared("data", "bccd", "test.json")
    dataset = load_coco(annotations, shared("data", "bccd", "images"))
    rng = np.random.default_rng(6)
    results = []
    for image in dataset.images:
        for box, label in zip(image.boxes, image.labels, strict=True):
            if rng.uniform() < 0.2:
                continue
            for _ in range(rng.integers(1, 3)):
                moved = np.sort((box + rng.normal(0, 6, 4)).reshape(2, 2), axis=0).ravel()
                category = dataset.category_ids[label]
                if rng.uniform() < 0.1:
                    category = int(rng.choice(dataset.category_ids))
                results.append(coco_result(image.image_id, category, moved.tolist(), rng.uniform()))
    ids = [image.image_id for image in dataset.images]
    found = coco_figures(dataset, results, ids)
    figures, per_class = found.figures, found.per_class

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def direct(category: Id | None) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(annotations))
            run = COCOeval(truth, truth.loadRes(results), "bbox")
            if category is not None:
                run.params.catIds = [category]
            run.evaluate()
            run.accumulate()
            run.summarize()
        return [float(v) for v in run.stats]

    expected = [None if v < 0 else v for v in direct(None)]
    assert list(figures.values()) == pytest.approx(expected, abs=1e-6)
    assert figures["AP"] is not None and 0.1 < figures["AP"] < 0.8
    assert len(per_class) == 3
    for name, category in zip(dataset.classes, dataset.category_ids, strict=True):
        assert per_class[name] == pytest.approx(direct(category)[0], abs=1e-6)


def test_figures_of_some_images_count_those_alone(tmp_path: Path) -> None:
    path, images = _write(tmp_path, _document())
    dataset = load_coco(path, images)
    first = dataset.images[0]
    results = [
        coco_result(first.image_id, dataset.category_ids[k], [float(v) for v in box], 0.9)
        for box, k in zip(first.boxes, first.labels, strict=True)
    ]
    assert coco_figures(dataset, results, [10]).figures["AP"] == pytest.approx(1.0)
    everything = coco_figures(dataset, results, [10, 11, 12, 13]).figures["AP"]
    assert everything == pytest.approx(26 / 101)  # recall ends at 1/4


def test_an_unreadable_image_is_left_out_and_named(tmp_path: Path) -> None:
    path, images = _write(tmp_path, _document())
    detector = _perfect(load_coco(path, images), ("disc", "square", "ring"))
    (images / "2.png").write_bytes(b"")
    result = evaluate(detector, path, images)
    assert result.skipped == ((images / "2.png", "the file is empty"),)
    assert result.images == 3 and result.figures["AP"] == pytest.approx(1.0)
    for image in images.iterdir():
        image.write_bytes(b"")
    with pytest.raises(BadInput, match=r"no image in .* can be read: the file is empty\."):
        evaluate(detector, path, images)


def test_turned_images_are_left_out_and_named(tmp_path: Path) -> None:
    """EXIF turned them, so nothing says where the boxes are."""
    path, images = _write(tmp_path, _document())
    detector = _perfect(load_coco(path, images), ("disc", "square", "ring"))
    assert cv2.imwrite(str(images / "1.png"), np.full((400, 160, 3), 1, np.uint8))
    result = evaluate(detector, path, images)
    assert result.problems[1:] == (
        "1 images turned against their annotations, as by EXIF (dropped): "
        "1.png (160x400, annotated 400x160)",
    )
    assert (result.images, result.listed) == (3, 4) and result.ap == pytest.approx(1.0)
    assert "AP by class (3 of the 4 listed images)" in figures_table(result)


def test_images_of_twice_the_size_score_the_same(tmp_path: Path) -> None:
    """Detections are in the file's pixels and are compared in the annotations' pixels."""
    path, images = _write(tmp_path, _document())
    detector = _perfect(load_coco(path, images), ("disc", "square", "ring"))
    detector.answers = [  # shifted by a pixel: they miss the highest thresholds
        replace(d, xyxy=d.xyxy + np.float32(1)) for d in detector.answers
    ]
    before = evaluate(detector, path, images)
    for number, answer in enumerate(detector.answers):
        large = np.full((320, 800, 3), number, np.uint8)
        assert cv2.imwrite(str(images / f"{number}.png"), large)
        detector.answers[number] = replace(answer, xyxy=2 * answer.xyxy)
    after = evaluate(detector, path, images)
    assert before.figures["AP"] is not None and 0.5 < before.figures["AP"] < 1
    assert after.figures == pytest.approx(before.figures)
    assert after.problems[1].startswith("4 images of another size than annotated ")


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    """Seen: the second category of a name took all detections, so the first was missed."""
    document = _document()
    document["categories"].append(
        {"id": 0, "name": "Disc "}
    )  # Roboflow gives the whole set such a category
    path, images = _write(tmp_path, document)
    dataset = load_coco(path, images)
    assert dataset.classes == ("Disc ", "disc", "Square", "ring")
    detector = _perfect(dataset, ("disc ", "square", "ring", "disc"))
    detector.classes = ("disc", "square", "ring", "disc")
    result = evaluate(detector, path, images)
    assert result.per_class == pytest.approx({"disc": 1.0, "Square": 1.0, "ring": 1.0})
    assert result.figures["AP"] == pytest.approx(1.0)
    assert result.problems[1:] == (
        "2 categories are called Disc  (ids 0, 3): they count as one",
        "the model has 2 classes named disc: they count as one",
    )
    for label in (0, 3):  # either of the model's two classes counts
        detector.answers = [
            replace(d, class_id=np.where(d.class_id % 3 == 0, label, d.class_id).astype(np.int32))
            for d in detector.answers
        ]
        assert evaluate(detector, path, images).figures["AP"] == pytest.approx(1.0)


def test_no_class_name_in_common(tmp_path: Path) -> None:
    path, images = _write(tmp_path, _document())
    detector: Any = _Known(("cat", "dog"), [])
    with pytest.raises(BadInput) as raised:
        evaluate(detector, path, images)
    assert str(raised.value) == (
        "the model and the annotations share no class name: the model has cat, dog; the "
        "annotations have disc, Square, ring. Give the model its names with `retinart export "
        "--classes FILE`."
    )


def test_classes_that_the_model_lacks(tmp_path: Path) -> None:
    path, images = _write(tmp_path, _document())
    dataset = load_coco(path, images)
    full = _perfect(dataset, ("disc", "square", "ring"))
    detector: Any = _Known(("disc", "unheard of"), [d[d.class_id == 0] for d in full.answers])
    result = evaluate(detector, path, images)
    assert result.problems[1:] == ("the model does not know Square, ring: they count as missed",)
    assert result.per_class == pytest.approx({"disc": 1.0, "Square": 0.0, "ring": 0.0})


def test_without_pycocotools_nothing_is_begun(model_path: Path, tmp_path: Path) -> None:
    """It exits with 3 and names the command before it reads the annotations, absent here."""
    code = (
        "import sys; sys.modules['pycocotools'] = None\n"
        "from retinart.cli import main\n"
        f"sys.exit(main(['eval', {str(model_path)!r}, '--images', {str(tmp_path)!r},"
        f" '--annotations', {str(tmp_path / 'none.json')!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 3
    assert run.stdout == ""
    said = run.stderr[
        run.stderr.index("retinart: ") :
    ]  # libraries may write before that, without /sys
    assert said == (
        "retinart: COCO evaluation needs the package pycocotools, which is not installed. "
        f"Install it with `{pip_command('eval')}` in retinart's folder.\n"
    )
