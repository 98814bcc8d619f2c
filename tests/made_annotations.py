"""Annotations as other programs write them, each made from a plain file by one change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

HEIGHT, WIDTH = 240, 320
CLASSES = ("cell", "dot", "ring")
Document = dict[str, Any]
Entry = dict[str, Any]


def made_boxes(image: int) -> list[list[int]]:
    """Four boxes over the whole image, one in each quarter; x, y, width and height."""
    rng = np.random.default_rng(image)
    boxes = []
    for x, y in ((0, 0), (WIDTH // 2, 0), (0, HEIGHT // 2), (WIDTH // 2, HEIGHT // 2)):
        w, h = (int(v) for v in rng.integers(40, 90, 2))
        boxes.append([x + WIDTH // 2 - w - 4, y + HEIGHT // 2 - h - 4, w, h])
    return boxes


def plain_annotations() -> Document:
    images = [
        {"id": i, "file_name": f"Pic_{i}.png", "height": HEIGHT, "width": WIDTH}
        for i in range(1, 13)
    ]
    boxes = [(i, k, box) for i in range(1, 13) for k, box in enumerate(made_boxes(i))]
    return {
        "images": images,
        "categories": [{"id": c, "name": name} for c, name in enumerate(CLASSES, 1)],
        "annotations": [
            {
                "id": n, "image_id": i, "category_id": 1 + (i + k) % 3, "bbox": box,
                "area": box[2] * box[3], "iscrowd": 0,
            }
            for n, (i, k, box) in enumerate(boxes, 1)
        ],
    }  # fmt: skip


def _each(name: str, change: Callable[[Entry], object]) -> Callable[[Document], object]:
    def apply(document: Document) -> None:
        for entry in document[name]:
            change(entry)

    return apply


def _boxes_by(change: Callable[[float, float, float, float], list[Any]]) -> Any:
    return _each("annotations", lambda a: a.update(bbox=change(*a["bbox"])))


def _ids(image: Any = None, of_image: Any = None, of_class: Any = None) -> Any:
    def apply(document: Document) -> None:
        for entry in document["images"] if image else ():
            entry["id"] = image(entry["id"])
        for entry in document["annotations"]:
            if of_image:
                entry["image_id"] = of_image(entry["image_id"])
            if of_class:
                entry["category_id"] = of_class(entry["category_id"])

    return apply


def _named(prefix: str, suffix: str = "") -> Any:
    return _each("images", lambda i: i.update(file_name=prefix + i["file_name"] + suffix))


def _size(width: Any, height: Any) -> Any:
    return _each("images", lambda i: i.update(width=width, height=height))


def _third_without_size(document: Document) -> None:
    for entry in document["images"][::3]:
        entry.update(width=None, height=None)


def _from_the_other_corner(document: Document) -> None:
    for entry in document["annotations"][::3]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x + w, y + h, -w, -h]


def _half(document: Document) -> None:
    for entry in document["images"]:
        entry.update(width=WIDTH // 2, height=HEIGHT // 2)
    for entry in document["annotations"]:
        entry["bbox"] = [v / 2 for v in entry["bbox"]]


def _with_negative_sides(document: Document) -> None:
    for entry in document["annotations"][::4]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x / 4, y / 4, -w, -h]


FOREIGN = "12 file names of another folder or spelling (found by the end of the name)"

READ: dict[str, tuple[Any, str | None]] = {
    "ids of annotations that start again in each image": (
        _each("annotations", lambda a: a.update(id=1 + (a["id"] - 1) % 4)),
        "44 annotation ids that repeat (kept: these ids count for nothing)",
    ),
    "ids of annotations that are all 0": (
        _each("annotations", lambda a: a.update(id=0)),
        "47 annotation ids that repeat (kept: these ids count for nothing)",
    ),
    "annotations without ids": (_each("annotations", lambda a: a.pop("id")), None),
    "annotations with null as id": (_each("annotations", lambda a: a.update(id=None)), None),
    "ids as floats": (_ids(None, float, float), None),
    "ids of images as floats": (_ids(float), None),
    "ids as text": (_ids(str, str, str), None),
    "ids as text in annotations alone": (_ids(None, str, lambda c: f"{c}.0"), None),
    "ids that are names": (_ids(lambda i: f"img_{i:02d}", lambda i: f"img_{i:02d}"), None),
    "no sizes": (
        _each("images", lambda i: (i.pop("width"), i.pop("height"))),
        "12 images without height and width (read from the files)",
    ),
    "a third without sizes": (
        _third_without_size,
        "4 images without height and width (read from the files)",
    ),
    "sizes of 0": (_size(0, 0), "12 images without height and width (read from the files)"),
    "sizes as text": (_size(str(WIDTH), f"{HEIGHT}.0"), None),
    "sizes swapped": (
        _size(HEIGHT, WIDTH),
        "12 images with height and width swapped in the annotations (the file's size counts)",
    ),
    "sizes of something else": (
        _size(100, 100),
        "12 images of another size than annotated, whose boxes fit the file's "
        "(the file's size counts)",
    ),
    "sizes too large": (
        _size(2 * WIDTH, 2 * HEIGHT),
        "12 images of another size than annotated, whose boxes fit the file's "
        "(the file's size counts)",
    ),
    "annotations of a copy of half the size": (
        _half,
        "12 images of another size than annotated (boxes and image are scaled to each other)",
    ),
    "negative sides": (
        _from_the_other_corner,
        "16 boxes with a negative side (their corners are sorted)",
    ),
    "numbers of boxes as text": (_boxes_by(lambda *box: [str(v) for v in box]), None),
    "crowds as text": (_each("annotations", lambda a: a.update(iscrowd="0")), None),
    "crowds as false": (_each("annotations", lambda a: a.update(iscrowd=False)), None),
    "crowds as null": (_each("annotations", lambda a: a.update(iscrowd=None)), None),
    "no word of crowds": (_each("annotations", lambda a: a.pop("iscrowd")), None),
    "no areas": (_each("annotations", lambda a: a.pop("area")), None),
    "areas as text": (_each("annotations", lambda a: a.update(area=str(a["area"]))), None),
    "negative areas": (
        _each("annotations", lambda a: a.update(area=-a["area"])),
        "48 unusable areas (the box's area counts)",
    ),
    "areas of more than an image": (
        _each("annotations", lambda a: a.update(area=1e12)),
        "48 unusable areas (the box's area counts)",
    ),
    "marks to ignore": (
        _each("annotations", lambda a: a.update(ignore=1)),
        "48 annotations marked as ignored (the mark counts for nothing)",
    ),
    "paths of Windows": (_named("images\\"), FOREIGN),
    "paths of Windows with a drive": (_named("C:\\data\\set\\"), FOREIGN),
    "a drive of Windows without a folder": (_named("C:"), FOREIGN),
    "paths of another computer": (_named("/data/another/set/"), FOREIGN),
    "paths of a folder above": (_named("../images/"), FOREIGN),
    "addresses": (_named("https://host/a%20b/", "?token=1"), FOREIGN),
    "names in capitals": (
        _each("images", lambda i: i.update(file_name=i["file_name"].upper())),
        FOREIGN,
    ),
    "a category without objects": (
        lambda d: d["categories"].insert(0, {"id": 0, "name": "cells"}),
        "the model does not know cells, which have no objects: they count for nothing",
    ),
    "a category of the same name without objects": (
        lambda d: d["categories"].insert(0, {"id": 0, "name": "Cell"}),
        "2 categories are called Cell (ids 0, 1): they count as one",
    ),
    "a category that repeats": (
        lambda d: d["categories"].append(d["categories"][0]),
        "1 entries that repeat a category (the first counts)",
    ),
    "an image that repeats": (
        lambda d: d["images"].append(d["images"][0]),
        "1 entries that repeat an image (the first counts)",
    ),
    "UTF-8 with a mark": (lambda d: json.dumps(d).encode("utf-8-sig"), None),
    "UTF-16": (lambda d: json.dumps(d).encode("utf-16"), None),
}  # fmt: skip


def _clash_of_images(document: Document) -> None:
    """Two files of six images, each counted from 1, put together."""
    for entry in document["images"][6:]:
        entry["id"] -= 6
    for entry in document["annotations"][24:]:
        entry["image_id"] -= 6


STOPPED: dict[str, tuple[Any, str]] = {
    "shares of the image": (
        _boxes_by(lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]),
        "not x, y, width and height in pixels: 48 of 48 have no number above 1, as shares",
    ),
    "percent of the image": (
        _boxes_by(
            lambda x, y, w, h: [100 * v for v in (x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT)]
        ),
        "all 48 lie within 100 of the left and top, as percent of the image",
    ),
    "thousandths of the image": (
        _boxes_by(
            lambda x, y, w, h: [1000 * v for v in (x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT)]
        ),
        "of 48 lie for the most part outside of their image",
    ),
    "corners": (
        _boxes_by(lambda x, y, w, h: [x, y, x + w, y + h]),
        "and all fit as the corners x1, y1, x2 and y2",
    ),
    "centres": (
        _boxes_by(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]),
        "and all fit as the centre with width and height",
    ),
    "y before x": (
        _boxes_by(lambda x, y, w, h: [y, x, h, w]),
        "and all fit as y, x, height and width",
    ),
    "negative sides at the wrong corner": (
        _with_negative_sides,
        "of the 48 boxes of .* have a negative side: from their x and y they point out",
    ),
    "some shares": (
        lambda d: [a.update(bbox=[v / 1000 for v in a["bbox"]]) for a in d["annotations"][::4]]
        and None,
        "12 of 48 are smaller than a pixel",
    ),
    "images counted from 0 in boxes alone": (
        _ids(None, lambda i: i - 1),
        "counts image ids in two ways: the boxes have 0 to 11, and the list has 1 to 12",
    ),
    "classes counted from 0 in boxes alone": (
        _ids(None, None, lambda c: c - 1),
        "counts category ids in two ways: the boxes have 0 to 2, and the list has 1 to 3",
    ),
    "a list twice": (
        lambda d: (json.dumps(d)[:-1] + ', "annotations": []}').encode(),
        "has the list 'annotations' twice: only one of the two would be read",
    ),
    "no box": (_each("annotations", lambda a: a.update(bbox=None)), "48 of 48 .* cannot be used"),
    "NaN": (
        _each("annotations", lambda a: a["id"] % 2 or a.update(bbox=[float("nan")] * 4)),
        "24 of 48 annotations .* cannot be used: 24 annotations without a box of four numbers",
    ),
    "null for the image": (_ids(None, lambda i: None), "48 annotations without an image id"),
    "true for a class": (
        _ids(None, None, lambda c: True if c == 1 else c),
        "16 of 48 annotations .* cannot be used: 16 annotations without a category id",
    ),
    "no annotation": (lambda d: d.update(annotations=[]), "nothing to measure AP on .* no image"),
    "crowds alone": (
        _each("annotations", lambda a: a.update(iscrowd="1")),
        "nothing to measure AP on .* all 48 objects are crowds",
    ),
    "unknown classes": (_ids(None, None, lambda c: 9), "nothing to measure .* 48 unknown categor"),
    "unknown images": (_ids(None, lambda i: i + 99), "nothing to measure .* 48 unknown image ids"),
    "a word for a crowd": (
        lambda d: d["annotations"][0].update(iscrowd="maybe"),
        r'`iscrowd` of annotation 1 in .* is "maybe": .* Give 0 or 1',
    ),
    "an image id of two images": (
        _clash_of_images,
        "gives the image id 1 twice: to Pic_1.png and to Pic_7.png, and nothing says which",
    ),
    "a category id of two classes": (
        lambda d: d["categories"].append({"id": 1.0, "name": "blob"}),
        "gives the category id 1 twice: to cell and to blob",
    ),
    "an image without id": (
        lambda d: d["images"][0].pop("id") and None,
        "image number 0 has no id",
    ),
    "an image with null as id": (
        lambda d: d["images"][0].update(id=None),
        "image number 0 has the id null",
    ),
    "no file names": (
        _each("images", lambda i: i.update(file_name=None)),
        "12 images without a file name .* correct the annotations",
    ),
    "two folders in one": (
        lambda d: (
            d["images"][0].update(file_name="a/Pic_1.png"),
            d["images"][1].update(file_name="b/Pic_1.png"),
        ),
        "two images of .* would be read from one file: a/Pic_1.png and b/Pic_1.png",
    ),
    "a list": (lambda d: json.dumps(d["annotations"]).encode(), "it is a list, and has no list"),
    "results": (
        lambda d: json.dumps([{**a, "score": 0.5} for a in d["annotations"]]).encode(),
        "it is a list of results, as detectors write them",
    ),
    "LVIS": (
        _each("images", lambda i: i.update(not_exhaustive_category_ids=[])),
        "is an LVIS file: its images are annotated for some of the classes only",
    ),
    "panoptic segmentation": (
        _each("annotations", lambda a: a.update(segments_info=[])),
        "it holds panoptic segmentation",
    ),
    "another format": (
        lambda d: json.dumps({"shapes": [], "imagePath": "a"}).encode(),
        "it has no list 'images'; it has 'shapes', 'imagePath'",
    ),
    "Latin-1": (
        lambda d: json.dumps({**d, "info": "é"}, ensure_ascii=False).encode("latin-1"),
        "its text is neither UTF-8 nor UTF-16",
    ),
}  # fmt: skip
