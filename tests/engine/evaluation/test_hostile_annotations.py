"""YOLO's and Pascal VOC's files that ask for far more time or memory than they hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.yolo import read_names
from support import write_images

_LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{_LAUGHS}names: *a8\n", r"reference \*a0"),
        ("names: &n [*n]\n", r"reference \*n"),
        ("names: [a, [b]]\n", "class 1 no name: its name is a list or a map"),
        ("names: {0: ''}\n", "class 0 no name: its name is empty"),
        (f"names: {'[' * 500}{']' * 500}\n", "as YAML"),
        ('names: ["\\ud800"]\n', "half of a surrogate pair"),
        (f"names: {{{'9' * 5000}: a}}\n", "as YAML"),
        (f"{'#' * (1 << 18)}\nnames: [a]\n", "262,144 are the most"),
    ],
)
def test_yaml_of_strangers(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        read_names(path)
    assert "data.yaml" in str(error.value)


def test_values_of_yaml_are_texts(tmp_path: Path) -> None:
    """Python does not print a whole number of 100,000 digits."""
    path = tmp_path / "data.yaml"
    path.write_text(f"names: [no, 2020-99-99, 0x{'f' * 100_000}]\n")
    no, date, digits = read_names(path).values()
    assert (no, date, len(digits)) == ("no", "2020-99-99", 100_002)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 .5 .5 .1 .1\n" * 100_001, "have 100,001 lines"),
        ("0" + " .5" * (3 << 20), "8,388,608 are the most"),
        ("9" * 5000 + " .5 .5 .1 .1\n", "is '9{40}', not the number of a class"),
    ],
)
def test_labels_of_strangers(text: str, message: str, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "classes.txt").write_text("cat\n")
    (labels / "a.txt").write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        load_coco(labels, write_images(tmp_path / "images", "a.png"))
    assert "a.txt" in str(error.value)


def test_xml_of_strangers(tmp_path: Path) -> None:
    """Each empty element takes about a hundred bytes of memory."""
    xml = tmp_path / "xml"
    xml.mkdir()
    (xml / "a.xml").write_text(f"<annotation>{'<a/>' * (2 << 20)}</annotation>")
    with pytest.raises(BadInput, match=r"a\.xml: .*8,388,608 are the most"):
        load_coco(xml, write_images(tmp_path / "images", "a.png"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-be"])
def test_a_file_with_holes(encoding: str, tmp_path: Path) -> None:
    """It would take twice its length of memory, and has eight bytes."""
    path = tmp_path / "a.json"
    path.write_bytes('{"a"'.encode(encoding))
    os.truncate(path, 1 << 30)
    with pytest.raises(BadInput, match=r"a\.json: .*its byte \d+ is zero"):
        load_coco(path, tmp_path)


@pytest.mark.parametrize("empty", ["[]", "{}"])
def test_a_file_of_lists_that_hold_nothing(empty: str, tmp_path: Path) -> None:
    """90 MB of them took 2.5 GiB."""
    path = tmp_path / "a.json"
    lists = f"[{empty}{f',{empty}' * 2**20}]"
    path.write_text(f'{{"images": [], "categories": [], "annotations": {lists}}}')
    with pytest.raises(BadInput, match=r"a\.json: it has 1,048,581 lists and objects in 3 MiB"):
        load_coco(path, tmp_path)


def test_more_categories_than_a_model_has_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    categories = [{"id": i, "name": f"c{i}"} for i in range(100_001)]
    images = [{"id": 1, "file_name": "a.png"}]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    with pytest.raises(BadInput, match=r"a\.json has 100,001 categories"):
        load_coco(path, tmp_path)
