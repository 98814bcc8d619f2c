"""The same objects in COCO's, YOLO's and Pascal VOC's form are read alike, with the same checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.annotation_files import annotations_sha256
from retinart.engine.evaluation.coco import CocoDataset, load_coco
from support import write_images

Command = Callable[..., CompletedProcess[str]]
Box = tuple[str, tuple[float, float, float, float]]  # class, and xywh

OBJECTS: dict[str, list[Box]] = {
    "0.png": [("cat", (10, 20, 30, 24)), ("dog", (60, 4, 40, 40))],
    "1.png": [("dog", (0, 0, 64, 48))],
    "2.png": [],
}
NAMES = ("cat", "dog")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of 128x96."""
    return write_images(tmp_path / "set" / "images", *OBJECTS)


def write_coco(folder: Path) -> Path:
    annotations = [
        {"id": 1 + 10 * i + k, "image_id": i, "category_id": NAMES.index(name), "bbox": list(box)}
        for i, found in enumerate(OBJECTS.values())
        for k, (name, box) in enumerate(found)
    ]
    images = [{"id": i, "file_name": n, "height": 96, "width": 128} for i, n in enumerate(OBJECTS)]
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    path = folder / "coco.json"
    document = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(document))
    return path


def write_yolo(folder: Path) -> Path:
    labels = folder / "set" / "labels"
    labels.mkdir(parents=True)
    for file, found in OBJECTS.items():
        lines = [
            f"{NAMES.index(name)} {(x + w / 2) / 128} {(y + h / 2) / 96} {w / 128} {h / 96}\n"
            for name, (x, y, w, h) in found
        ]
        if lines:
            (labels / file).with_suffix(".txt").write_text("".join(lines))
    path = folder / "set" / "data.yaml"
    path.write_text("train: images\nnames:\n  0: cat\n  1: dog\n")
    return path


def voc_xml(file: str, objects: Sequence[str]) -> str:
    size = "<size><width>128</width><height>96</height><depth>3</depth></size>"
    return f"<annotation><filename>{file}</filename>{size}{''.join(objects)}</annotation>"


def voc_object(name: str, corners: Sequence[object], more: str = "") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def write_voc(folder: Path, first: int = 1) -> Path:
    """Corners count from `first`; from 1 as VOC does, the right and lower ones are inside."""
    path = folder / "voc"
    path.mkdir()
    for file, found in OBJECTS.items():
        objects = [voc_object(n, (x + first, y + first, x + w, y + h)) for n, (x, y, w, h) in found]
        (path / file).with_suffix(".xml").write_text(voc_xml(file, objects))
    return path


def objects_of(dataset: CocoDataset) -> dict[str, list[Box]]:
    return {
        image.path.name: [
            (dataset.classes[label], tuple(np.round(box, 4).tolist()))
            for label, box in zip(image.truth.labels, image.truth.xywh, strict=True)
        ]
        for image in dataset.images
    }


def test_all_forms_give_the_same_objects(pictures: Path, tmp_path: Path) -> None:
    labels = write_yolo(tmp_path)
    (labels.parent / "labels" / "classes.txt").write_text("cat\ndog\n")
    forms = [
        write_coco(tmp_path), labels, labels.parent / "labels", write_voc(tmp_path),
        write_voc(tmp_path / "set", first=0),
    ]  # fmt: skip
    for form in forms:
        dataset = load_coco(form, pictures)
        assert dataset.classes == NAMES, form
        assert objects_of(dataset) == OBJECTS, form
        assert len(annotations_sha256(form, pictures)) == 64
    assert "images without a label file" in str(load_coco(labels, pictures).problems)
    assert "count pixels from 0" in str(dataset.problems)


def test_convert(retinart: Command, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    for form in (write_yolo(tmp_path), write_voc(tmp_path)):
        ran = retinart("data", "convert", form, "--images", pictures, "-o", out)
        assert ran.returncode == 0 and ran.stdout == f"{out}\n", ran.stderr
        assert "3 images (1 without objects), 3 boxes, 2 classes" in ran.stderr
        assert objects_of(load_coco(out, pictures)) == OBJECTS
        written = json.loads(out.read_text("utf-8"))["annotations"]
        assert [entry["id"] for entry in written] == [1, 2, 3]
        assert written[0]["area"] == pytest.approx(720) and written[0]["iscrowd"] == 0
    ran = retinart("data", "convert", tmp_path / "none", "--images", pictures, "-o", out)
    assert ran.returncode == 2 and "there is no" in ran.stderr


def test_eval_reads_them(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    """`eval` gives the same figures for a folder of VOC files as for the COCO file of these."""
    names = sorted(p.name for p in small_scenes.iterdir())[:3]
    images = tmp_path / "images"
    images.mkdir()
    voc = tmp_path / "voc"
    voc.mkdir()
    for name in names:
        (images / name).write_bytes((small_scenes / name).read_bytes())
        text = voc_xml(name, [voc_object("disc", (11, 11, 40, 40))])
        (voc / name).with_suffix(".xml").write_text(text.replace("128", "0").replace("96", "0"))
    out = tmp_path / "out.json"
    assert retinart("data", "convert", voc, "--images", images, "-o", out).returncode == 0
    said = [
        retinart("eval", model_path, "--images", images, "--annotations", path).stdout
        for path in (voc, out)
    ]
    assert "AP50" in said[0] and said[0] == said[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 64 48 30 20", "64 is not a share of the image"),
        ("0 0.5 0.5 0.2", "it has 3 numbers after the class"),
        ("0 0.5 0.5 0.2 0.2 0.9", "as detections with a confidence have"),
        ("cat 0.5 0.5 0.2 0.2", "its first word is 'cat'"),
        ("0 0.5 nan 0.2 0.2", "not all of its words are numbers"),
    ],
)
def test_lines_of_another_form(pictures: Path, tmp_path: Path, line: str, message: str) -> None:
    path = write_yolo(tmp_path)
    (path.parent / "labels" / "1.txt").write_text(line)
    with pytest.raises(BadInput, match=f"line 1 of .*1.txt.*{message}"):
        load_coco(path, pictures)


def test_rules_of_yolo(pictures: Path, tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    labels = path.parent / "labels"
    (labels / "1.txt").write_text("1 0.1 0.1 0.4 0.1 0.4 0.5 0.1 0.5\n7 0.5 0.5 0.2 0.2\n")
    (labels / "other.txt").write_text("")
    (labels / "classes.txt").write_text("cat\ndog\n")
    dataset = load_coco(labels, pictures)
    name, box = objects_of(dataset)["1.png"][0]
    assert name == "dog" and box == pytest.approx((12.8, 9.6, 38.4, 38.4))
    problems = " ".join(map(str, dataset.problems))
    assert "1 unknown categories (boxes dropped): 7" in problems
    assert "1 label files without an image (not used): other.txt" in problems
    (labels / "0.txt").write_text("0 0.9 0.5 0.4 0.2\n")  # leaves its image
    assert "partly outside of their image" in str(load_coco(path, pictures).problems)
    for text, message in (("names: 3", "names no classes"), ("names: [", "as YAML")):
        path.write_text(text)
        with pytest.raises(BadInput, match=message):
            load_coco(path, pictures)
    (labels / "classes.txt").unlink()
    path.unlink()
    with pytest.raises(BadInput, match="have no class names"):
        load_coco(labels, pictures)
    (labels / "classes.txt").write_text("cat\ndog\n")
    for file in OBJECTS:
        (labels / file).with_suffix(".txt").unlink(missing_ok=True)
    with pytest.raises(BadInput, match="none of the 3 images has a label file"):
        load_coco(labels, pictures)


def test_rules_of_voc(pictures: Path, tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    file = folder / "1.xml"
    objects = [
        voc_object("cat", (1, 1, 20, 20), "<difficult>1</difficult>"),
        voc_object("dog", ("", 1, 20, 20)),
    ]
    file.write_text(voc_xml("else.jpg", objects))  # another name: the file's own counts
    dataset = load_coco(folder, pictures)
    image = next(i for i in dataset.images if i.path.name == "1.png")
    assert image.truth.crowd.tolist() == [True]
    assert "without a box of four numbers" in str(dataset.problems)
    bad = {
        "<annotation>": "not XML or was cut off",
        "<other/>": "it holds 'other'",
        "<!DOCTYPE a [<!ENTITY x 'y'>]><annotation/>": "declares entities",
        voc_xml("1.png", ["<object/>"]): "has no name",
    }
    for text, message in bad.items():
        file.write_text(text)
        with pytest.raises(BadInput, match=message):
            load_coco(folder, pictures)
    for path in folder.iterdir():
        path.write_text(voc_xml("x.png", []))
    with pytest.raises(BadInput, match="has an object"):
        load_coco(folder, pictures)
