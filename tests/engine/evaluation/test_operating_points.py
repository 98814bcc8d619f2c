"""Precision, recall, F1 and the confusion matrix are those of pycocotools and supervision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.evaluation.coco import CocoDataset, CocoImage, Truth
from retinart.engine.evaluation.coco_figures import coco_figures
from retinart.engine.evaluation.coco_json import Id
from retinart.engine.evaluation.confusion import confusion, confusion_lines
from retinart.engine.evaluation.operating_points import ALL, Operating, operating_points
from retinart.engine.evaluation.results import coco_results

pytest.importorskip("pycocotools")

CLASSES = ("cell", "dot", "ring")
CATEGORY: dict[int, Id] = {0: 7, 1: 3, 2: 9}  # in another order than the dataset's
Command = Callable[..., CompletedProcess[str]]


def made_dataset(seed: int, crowds: bool) -> tuple[CocoDataset, dict[Id, Detections]]:
    """Dense pictures whose objects overlap, and detections of which some have a wrong class."""
    rng = np.random.default_rng(seed)
    images, found = [], dict[Id, Detections]()
    for k in range(12):
        count = int(rng.integers(0, 9)) if k else 0
        xywh = np.concatenate([rng.uniform(0, 120, (count, 2)), rng.uniform(8, 60, (count, 2))], 1)
        labels = rng.integers(0, 3, count)
        crowd = (rng.uniform(size=count) < 0.2) & crowds
        truth = Truth(xywh=xywh, labels=labels, crowd=crowd, areas=xywh[:, 2:].prod(axis=1))
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        boxes = np.repeat(corners, 2, axis=0) + rng.normal(0, 4, (2 * count, 4))
        boxes = np.concatenate([boxes, rng.uniform(0, 60, (3, 4)) + np.array([0, 0, 70, 70])])
        named = np.array([9, 3, 7])[np.concatenate([np.repeat(labels, 2), rng.integers(0, 3, 3)])]
        index = np.array([{7: 0, 3: 1, 9: 2}[n] for n in named.tolist()], np.int32)
        wrong = rng.uniform(size=len(index)) < 0.5
        index[wrong] = rng.integers(0, 3, wrong.sum())
        found[k] = Detections(
            xyxy=np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4).astype(np.float32),
            confidence=np.sort(rng.uniform(0.05, 1, len(boxes)).astype(np.float32))[::-1],
            class_id=index,
        )
        none = np.zeros((0, 4), np.float32)
        images.append(
            CocoImage(
                image_id=k, path=Path("x"), height=200, width=200, boxes=none, labels=labels[:0],
                crowd=crowd[:0], areas=none[:, 0], truth=truth,
            )
        )  # fmt: skip
    dataset = CocoDataset(
        annotations=Path("made.json"),
        classes=("ring", "dot", "cell"),
        category_ids=(9, 3, 7),
        images=tuple(images),
        listed=12,
        problems=(),
    )
    return dataset, found


def counts_by_pycocotools(
    dataset: CocoDataset, found: dict[Id, Detections], least: float
) -> dict[str, tuple[float, int]]:
    """The recall at an IoU of 0.5 by class, of detections from a confidence on, and their hits."""
    kept = {k: d[d.confidence >= least] for k, d in found.items()}
    results = [r for k, d in kept.items() for r in coco_results(k, d, CATEGORY)]
    matches = coco_figures(dataset, results, list(found)).matches
    return {
        name: (
            parts[0].events[0].hit.sum() / len(parts[0].objects),
            len(parts[0].counted) + int(parts[0].events[0].more.sum()),
        )
        for name, parts in zip(matches.classes, matches.curves, strict=True)
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_confidence_is_an_evaluation_of_what_it_leaves(seed: int) -> None:
    """A lower limit changes no match above it, so one evaluation tells all."""
    dataset, found = made_dataset(seed, crowds=seed % 2 == 1)
    results = [r for k, d in found.items() for r in coco_results(k, d, CATEGORY)]
    points = operating_points(coco_figures(dataset, results, list(found)).matches)
    for thousandth in (0, 200, 500, 900):
        expected = counts_by_pycocotools(dataset, found, thousandth / 1000)
        for name, (recall, counted) in expected.items():
            point = points[name].at(thousandth)
            assert point["recall"] == pytest.approx(recall)
            label = dataset.classes.index(name)
            truths = [image.truth for image in dataset.images]
            objects = sum(((t.labels == label) & ~t.crowd).sum() for t in truths)
            if counted:
                assert point["precision"] == pytest.approx(recall * objects / counted)
            assert point["f1"] == pytest.approx(2 * recall * objects / (counted + objects))
    best = points[ALL].at(points[ALL].best)
    assert best["f1"] == points[ALL].f1.max() > 0.3


def test_the_middle_of_the_best_confidences() -> None:
    f1 = np.zeros(1000)
    f1[300:401] = f1[700] = 0.5
    assert Operating(precision=f1, recall=f1, f1=f1).best == 350
    f1[400] = 0.6
    assert Operating(precision=f1, recall=f1, f1=f1).best == 400


@pytest.mark.parametrize("seed", range(6))
def test_the_confusion_matrix_is_supervisions(seed: int) -> None:
    supervision = pytest.importorskip("supervision")
    dataset, found = made_dataset(seed, crowds=False)
    matrix = confusion(dataset, found, CATEGORY, 0.4)
    targets, predictions = [], []
    number = [2, 1, 0]  # the dataset's index of each class of the model
    for image in dataset.images:
        xywh = image.truth.xywh
        targets.append(
            supervision.Detections(
                xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
                class_id=image.truth.labels,
            )
        )
        one = found[image.image_id]
        predictions.append(
            supervision.Detections(
                xyxy=one.xyxy,
                confidence=one.confidence,
                class_id=np.array([number[k] for k in one.class_id.tolist()]),
            )
        )
    theirs = supervision.ConfusionMatrix.from_detections(
        predictions=predictions,
        targets=targets,
        classes=list(dataset.classes),
        conf_threshold=0.4,
        iou_threshold=0.5,
    )
    np.testing.assert_array_equal(matrix.counts, theirs.matrix)
    assert matrix.counts[:-1, :-1].sum() > np.trace(matrix.counts) > 5
    assert confusion_lines(matrix)[0].split()[0] == str(
        (matrix.counts[:-1, :-1] * (1 - np.eye(3, dtype=int))).max()
    )


def test_a_crowd_is_no_background() -> None:
    dataset, found = made_dataset(2, crowds=False)
    image, one = dataset.images[1], found[1][:1]
    box = one.xyxy.astype(float)
    truth = Truth(
        xywh=np.concatenate([box[:, :2] - 5, box[:, 2:] - box[:, :2] + 90], axis=1),
        labels=np.array([dataset.category_ids.index(CATEGORY[int(one.class_id[0])])]),
        crowd=np.array([True]),
        areas=np.array([1.0]),
    )
    for crowd, expected in ((True, 0), (False, 2)):  # an object, and a detection that misses it
        changed = dataclasses.replace(truth, crowd=np.array([crowd]))
        alone = dataclasses.replace(dataset, images=(dataclasses.replace(image, truth=changed),))
        assert confusion(alone, {1: one}, CATEGORY, 0.0).counts.sum() == expected


def test_a_page_and_tables(
    retinart: Command, tiny_path: Path, scenes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"
    data = ("--images", scenes / "images", "--annotations", scenes / "instances.json")
    ran = retinart("eval", tiny_path, *data, "--report", page)
    assert ran.returncode == 0, ran.stderr
    for words in (
        "The confidence that maximises F1",
        "Confusion matrix",
        "background",
        "--conf 0.",
    ):
        assert words in ran.stdout
    html = page.read_text("utf-8")
    assert html.count("<svg") == 2 and "maximises F1 of all classes" in html
    ran = retinart("eval", tiny_path, *data, "--report", page, "--against", tiny_path)
    assert ran.returncode == 2 and "--report is for one model" in ran.stderr
