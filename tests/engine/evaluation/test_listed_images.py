"""The images of a folder that a COCO file lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.listed_images import listed_images


def _listing(folder: Path, *names: str) -> Path:
    path = folder / "train.json"
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "categories": []}))
    return path


def test_only_the_listed_images_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    for name in ("1.jpg", "2.jpg", "a/3.jpg", "4.jpg"):
        (tmp_path / name).touch()
    listing = _listing(tmp_path, "4.jpg", "a/3.jpg", "C:\\data\\1.JPG")
    whole = listed_images(listing, [str(tmp_path)])
    assert whole == [tmp_path / name for name in ("1.jpg", "4.jpg", "a/3.jpg")]
    assert capsys.readouterr().err == ""
    parts = [str(tmp_path / "*.jpg"), str(tmp_path / "a")]
    assert listed_images(listing, parts) == whole

    assert listed_images(listing, parts[1:]) == [tmp_path / "a" / "3.jpg"]
    said = capsys.readouterr().err
    assert f"lists 3 images, and 2 of them are not in {parts[1]}; the first is 4.jpg" in said


def test_a_list_of_other_images(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    for names, why in ((("x.jpg",), r"none of the 1 image .* called 'x\.jpg'"), ((), "nothing")):
        with pytest.raises(BadInput, match=why):
            listed_images(_listing(tmp_path, *names), [str(tmp_path)])
    with pytest.raises(BadInput, match="is a folder, and a COCO file is needed"):
        listed_images(tmp_path, [str(tmp_path)])
