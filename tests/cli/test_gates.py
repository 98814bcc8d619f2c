"""A gate that measured nothing fails: AP that does not exist is not 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from retinart.benchmarks.curve.run import Point
from retinart.calib.accuracy import Accuracy
from retinart.engine.errors import BadInput
from retinart.engine.evaluation import evaluate
from retinart.engine.media.images import read_image

pytest.importorskip("pycocotools")

Command = Callable[..., CompletedProcess[str]]


def _changed(scenes: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = json.loads((scenes / "instances.json").read_text())
    change(document)
    path = folder / "changed.json"
    path.write_text(json.dumps(document))
    return path


def _each(**fields: Any) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        for entry in document["annotations"]:
            entry |= fields

    return apply


NOTHING: dict[str, Callable[[dict[str, Any]], object]] = {
    "crowds": _each(iscrowd=1),
    "crowds as text": _each(iscrowd="1"),
    "no annotation": lambda d: d.update(annotations=[]),
    "other images": _each(image_id=987654),
    "boxes without area": _each(bbox=[9, 9, 0, 0]),
}


@pytest.mark.parametrize("case", NOTHING)
def test_gates_stop_where_nothing_is_measured(
    case: str, retinart: Command, tiny_path: Path, scenes: Path, tmp_path: Path
) -> None:
    """Seen: AP '-', 'loses 0.00 AP' and exit 0."""
    path = _changed(scenes, tmp_path, NOTHING[case])
    data = ("--images", scenes / "images", "--annotations", path)
    gate = ("--max-drop", "0.1")
    int8 = ("-o", tmp_path / "int8.onnx", "--num", "2", "--eval-images", scenes / "images")
    for arguments in (
        ("eval", tiny_path, *data),
        ("eval", tiny_path, *data, "--against", tiny_path, *gate, "--out", tmp_path / "out"),
        ("calibrate", tiny_path, *data, *gate, *int8),
        ("calibrate", tiny_path, *data, *int8),
    ):
        ran = retinart(*arguments)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert f"there is nothing to measure AP on in {path}" in ran.stderr
    assert not (tmp_path / "int8.onnx").exists()


def test_a_reference_that_finds_nothing_is_none(
    retinart: Command, tiny_path: Path, scenes: Path, tmp_path: Path
) -> None:
    """It can lose nothing, so that every other model would pass."""
    path = _changed(scenes, tmp_path, _each(bbox=[0, 0, 3, 3]))
    data = ("--images", scenes / "images", "--annotations", path)
    out = ("--out", tmp_path / "out")
    ran = retinart("eval", tiny_path, *data, "--against", tiny_path, "--max-drop", "0.1", *out)
    assert ran.returncode == 2 and f"{tiny_path} has AP 0: AP cannot fall below 0" in ran.stderr
    with pytest.raises(BadInput, match="has AP 0"):
        evaluate.check_reference("it", 0.0)
    with pytest.raises(BadInput, match="has AP 0"):
        evaluate.check_reference("it", float("nan"))


@pytest.mark.parametrize("drop", ["nan", "inf", "-1", "101"])
def test_a_limit_that_is_none_is_refused(
    drop: str, retinart: Command, tiny_path: Path, scenes: Path
) -> None:
    data = ("--images", scenes / "images", "--annotations", scenes / "instances.json")
    ran = retinart("eval", tiny_path, *data, "--against", tiny_path, f"--max-drop={drop}")
    assert ran.returncode == 2 and "Give AP points, 0 to 100" in ran.stderr


def test_figures_of_older_files_that_do_not_exist_are_not_0() -> None:
    """A curve's done.json and a calibration's record may hold them."""
    nothing: dict[str, float | None] = {"AP": None}
    with pytest.raises(BadInput, match="AP does not exist: no object was annotated"):
        _ = Accuracy(figures=nothing, per_class={}, images=0, runtime="x").ap
    model: Any = SimpleNamespace(ap=None)
    with pytest.raises(BadInput, match="AP does not exist"):
        _ = Point(scale=model, model=model).ap


def test_ap_of_unreadable_images_does_not_exist(
    tiny_path: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retinart.engine.detector import Detector

    def one_object(document: dict[str, Any]) -> None:
        document["annotations"] = document["annotations"][:1]

    path = _changed(scenes, tmp_path, one_object)
    document = json.loads(path.read_text())
    lost = next(
        i["file_name"]
        for i in document["images"]
        if i["id"] == document["annotations"][0]["image_id"]
    )

    def broken(path: Path, **more: Any) -> Any:
        if path.name == Path(lost).name:
            raise BadInput("cannot read it", why="it is cut off", fix="Copy it")
        return read_image(path, **more)

    monkeypatch.setattr(evaluate, "read_image", broken)
    with (
        Detector(tiny_path) as detector,
        pytest.raises(BadInput, match=r"no object is in the 15 images that could be read"),
    ):
        evaluate.evaluate(detector, path, scenes / "images", quiet=True)
