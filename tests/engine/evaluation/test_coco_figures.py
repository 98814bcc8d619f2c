"""The figures are pycocotools', to the last digit, on files that are easy to get wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinart.engine.common.files import write_json
from retinart.engine.detections import Detections
from retinart.engine.evaluation.class_names import match_classes
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.coco_figures import coco_figures
from retinart.engine.evaluation.evaluate import evaluate
from retinart.engine.evaluation.resample import draw_pictures, resampled
from retinart.engine.evaluation.results import coco_results
from retinart.engine.media.images import Image
from support import by_pycocotools

pytest.importorskip("pycocotools")

NAMES = ("person", "cat", "traffic light", "N/A")
HEIGHT, WIDTH = 120, 160
Document = dict[str, Any]


def _annotations(seed: int) -> Document:
    """Twelve images with objects of three classes and of every size."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for image in range(1, 13):
        for _ in range(rng.integers(0, 9)):
            w, h = np.exp(rng.uniform(np.log(4), np.log(110), 2))
            x, y = rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, 4)),
                    "bbox": [round(float(v), 2) for v in (x, y, w, h)],
                    "area": float(w * h * rng.uniform(0.5, 1)),
                    "iscrowd": 0,
                }
            )
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(1, 13)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES[:3], 1)],
        "annotations": annotations,
    }


class _Detector:
    """Objects moved a little, some twice, some missed, and some that are none; by a seed."""

    def __init__(self, document: Document, seed: int) -> None:
        self.classes = NAMES
        self._rng, self._scores = np.random.default_rng(seed), seed % 3
        self.found: list[Detections] = []
        self._objects: dict[int, list[tuple[list[float], int]]] = {}
        for entry in document["annotations"]:
            x, y, w, h = entry["bbox"]
            one = ([x, y, x + w, y + h], int(float(entry["category_id"])) - 1)
            self._objects.setdefault(int(float(entry["image_id"])), []).append(one)

    def __call__(self, image: Image, /, **more: object) -> Detections:
        rng, rows = self._rng, []
        for box, label in self._objects.get(int(image[0, 0, 0]), []):
            for _ in range(rng.choice([0, 1, 1, 1, 2])):
                moved = np.sort((box + rng.normal(0, 3, 4)).reshape(2, 2), axis=0).ravel()
                if rng.uniform() < 0.4:  # an overlap that is just above or below a threshold
                    share = rng.choice([0.5, 0.6, 0.75, 0.9]) + rng.choice([-2e-6, 2e-6])
                    moved = np.array([*box[:2], box[0] + share * (box[2] - box[0]), box[3]])
                other = rng.integers(4) if rng.uniform() < 0.1 else min(label, 3)
                rows.append((moved, other))
        for _ in range(rng.integers(0, 5)):
            low = rng.uniform(0, 60, 2)
            rows.append((np.concatenate([low, low + rng.uniform(3, 50, 2)]), rng.integers(4)))
        score = np.sort(rng.uniform(0.05, 1, len(rows)).astype(np.float32))[::-1]
        if self._scores == 1:  # many equal scores
            score = np.round(score, 1)
        if self._scores == 2:  # scores that rounding would make equal
            score = (0.5 + score / 1e7).astype(np.float32)
        found = Detections(
            xyxy=np.array([box for box, _ in rows], np.float32).reshape(-1, 4),
            confidence=score,
            class_id=np.array([label for _, label in rows], np.int32),
        )
        self.found.append(found)
        return found

    def given(self) -> tuple[list[list[float]], list[float]]:
        """The boxes, as x, y, width and height, and the scores of what counts in all calls."""
        rows = [
            (box.astype(float), score) for d in self.found for box, score, label in d if label < 3
        ]
        return [[*box[:2], *(box[2:] - box[:2])] for box, _ in rows], [s for _, s in rows]


def _change(change: Callable[[dict[str, Any], int], object], name: str = "annotations") -> Any:
    def apply(document: Document) -> None:
        for position, entry in enumerate(document[name]):
            change(entry, position)

    return apply


def _renumbered(image: Callable[[int], Any], category: Callable[[int], Any]) -> Any:
    def apply(document: Document) -> None:
        for entry in document["images"]:
            entry["id"] = image(entry["id"])
        for entry in document["categories"]:
            entry["id"] = category(entry["id"])
        for entry in document["annotations"]:
            entry["image_id"] = image(entry["image_id"])
            entry["category_id"] = category(entry["category_id"])

    return apply


def _without_images(document: Document) -> None:
    """Annotations of images that are not listed, as in a part of a dataset."""
    document["images"] = document["images"][:7]


def _no_objects_of_a_class(document: Document) -> None:
    document["annotations"] = [a for a in document["annotations"] if a["category_id"] != 2]


def _listed_backwards(document: Document) -> None:
    for entries in document.values():
        entries.reverse()


def _more(**fields: Any) -> Callable[[Document], None]:
    def apply(document: Document) -> None:
        for entry in document["annotations"][:3]:
            more = {**entry, "id": 1000 + entry["id"], "area": 1.0, **fields}
            document["annotations"].append(more)

    return apply


TRICKY: dict[str, Any] = {
    "plain": lambda d: None,
    "gaps in ids": _renumbered(lambda i: 1000 * i + 7, lambda c: (13, 2, 90)[c - 1]),
    "ids from 0": _renumbered(lambda i: i - 1, lambda c: c - 1),
    "large ids": _renumbered(lambda i: 2**53 - 40 + i, lambda c: 10**9 + c),
    "negative ids": _renumbered(lambda i: -i, lambda c: -c),
    "ids as floats": _renumbered(float, float),
    "ids of annotations as floats": _change(
        lambda a, _: a.update(image_id=float(a["image_id"]), category_id=float(a["category_id"]))
    ),
    "ids as text": _renumbered(str, lambda c: c),
    "crowds": _change(lambda a, i: a.update(iscrowd=int(i % 4 == 0))),
    "large crowds": _more(iscrowd=1, bbox=[0, 0, WIDTH, HEIGHT], area=WIDTH * HEIGHT),
    "crowds as true": _change(lambda a, i: a.update(iscrowd=i % 3 == 0)),
    "marks to ignore": _change(lambda a, i: a.update(ignore=i % 2)),
    "areas of 0": _change(lambda a, _: a.update(area=0)),
    "areas at the limits": _change(
        lambda a, i: a.update(area=(1024.0, 9216.0, 1024.0000001)[i % 3])
    ),
    "a class without objects": _no_objects_of_a_class,
    "a category that the model lacks": lambda d: d["categories"].append({"id": 9, "name": "none"}),
    "objects of a class that the model lacks": lambda d: (
        d["categories"].append({"id": 9, "name": "zebra"}),
        _more(category_id=9)(d),
    ),
    "images without objects": lambda d: d.update(
        annotations=[a for a in d["annotations"] if a["image_id"] % 3]
    ),
    "a part of the images": _without_images,
    "listed backwards": _listed_backwards,
    "objects listed twice": _more(),
    "boxes beyond the image": _change(
        lambda a, i: i % 9 or a.update(bbox=[a["bbox"][0] - 20, *a["bbox"][1:3], a["bbox"][3] + 99])
    ),
    "a box outside": _more(bbox=[500, 500, 20, 20]),
    "a box without area": _more(bbox=[10, 10, 0, 20], area=0),
    "a box of less than a pixel": _more(bbox=[10, 10, 0.5, 0.25], area=0.125),
    "a huge box": _more(bbox=[-1e6, -1e6, 3e6, 3e6]),
    "a category of no class of the model": lambda d: d["categories"].append({"id": 0, "name": "x"}),
    "more than 100 objects": lambda d: d["annotations"].extend(
        [
            {**d["annotations"][0], "id": 5000 + i, "bbox": [i % 15 * 10, i // 15 * 10, 9, 9]}
            for i in range(150)
        ]
    ),
}  # fmt: skip


def _differences(document: Document, seed: int, folder: Path) -> dict[str, float | None]:
    """Our figures, after they were compared with pycocotools' of the saved results."""
    for number in range(1, 13):
        picture = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), picture)
    path, saved = folder / "made.json", folder / "results.json"
    path.write_text(json.dumps(document))
    objects = _annotations(seed)
    for entry, changed in zip(objects["annotations"], document["annotations"], strict=False):
        if document["annotations"][0]["id"] == 1:  # the list begins as it did
            entry["bbox"] = changed["bbox"]
    detector = _Detector(objects, seed)
    found = evaluate(detector, path, folder, quiet=True)
    write_json(saved, found.results())
    assert found.figures == by_pycocotools(path, saved)
    boxes, scores = detector.given()
    assert [r["score"] for r in found.results()] == scores
    np.testing.assert_array_equal([r["bbox"] for r in found.results()], boxes)
    return found.figures


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("case", TRICKY)
def test_the_figures_are_pycocotools_to_the_last_digit(
    case: str, seed: int, tmp_path: Path
) -> None:
    document = _annotations(seed)
    TRICKY[case](document)
    figures = _differences(document, seed, tmp_path)
    assert figures["AP"] is not None and 0.02 < figures["AP"] < 0.9


def test_without_areas_and_crowds_the_figures_are_those_of_the_boxes(tmp_path: Path) -> None:
    """pycocotools refuses such a file; with the box's area written out it says the same."""
    document, seed = _annotations(0), 0
    for entry in document["annotations"]:
        del entry["iscrowd"]
        del entry["area"]
    (tmp_path / "without").mkdir()
    for folder in (tmp_path, tmp_path / "without"):
        for number in range(1, 13):
            picture = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
            assert cv2.imwrite(str(folder / f"{number}.png"), picture)
    path = tmp_path / "without" / "made.json"
    path.write_text(json.dumps(document))
    found = evaluate(_Detector(_annotations(0), 0), path, path.parent, quiet=True)
    for entry in document["annotations"]:
        entry |= {"iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]}
    assert found.figures == _differences(document, seed, tmp_path)


def test_the_annotation_0_can_be_found(tmp_path: Path) -> None:
    """pycocotools takes 0 for 'not matched', so a file from 0 gives it less than one from 1."""
    document = _annotations(0)
    expected = _differences(document, 0, tmp_path)
    for entry in document["annotations"]:
        entry["id"] -= 1
    path = tmp_path / "from0.json"
    path.write_text(json.dumps(document))
    found = evaluate(_Detector(_annotations(0), 0), path, tmp_path, quiet=True)
    assert found.figures == expected


@pytest.mark.parametrize("case", TRICKY)
def test_a_resample_has_the_figures_of_its_pictures(case: str, tmp_path: Path) -> None:
    """Pictures that were drawn several times, given to pycocotools as pictures of their own."""
    document, seed = _annotations(1), 1
    TRICKY[case](document)
    for number in range(1, 13):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((HEIGHT, WIDTH, 3), number, np.uint8))
    path = tmp_path / "made.json"
    path.write_text(json.dumps(document))
    # Equal scores in one picture would stand in another order, so there are none.
    found = evaluate(_Detector(_annotations(seed), 3), path, tmp_path, quiet=True)
    dataset = match_classes(NAMES, load_coco(path, tmp_path)).dataset
    images = sorted(dataset.images, key=lambda i: (isinstance(i.image_id, str), i.image_id))
    weights = draw_pictures(len(images), 3, seed)
    drawn = resampled(found.matches, weights, precision=0.5)
    for row, counts in enumerate(weights):
        copies = [image for image, n in zip(images, counts, strict=True) for _ in range(n)]
        again = dataclasses.replace(
            dataset,
            images=tuple(dataclasses.replace(image, image_id=k) for k, image in enumerate(copies)),
        )
        results = [
            result
            for k, image in enumerate(copies)
            for result in coco_results(k, found.found[image.image_id], found.category)
        ]
        expected = coco_figures(again, results, range(len(copies)))
        for name, values in drawn.figures.items():
            assert _same(values[row], expected.figures[name]), name
        for name, values in drawn.per_class.items():
            assert _same(values[row], expected.per_class[name]), name
        once = resampled(expected.matches, np.ones((1, len(copies)), np.int32), precision=0.5)
        for name, values in once.recall.items():
            np.testing.assert_array_equal(values[0], drawn.recall[name][row])


def _same(value: float, expected: float | None) -> bool:
    return bool(np.isnan(value)) if expected is None else abs(value - expected) < 1e-12
