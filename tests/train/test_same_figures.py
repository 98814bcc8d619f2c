"""`eval`, validation, `detect --coco` and pycocotools give the same figures for one model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from retinart.engine.evaluation.evaluate import points
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings
from retinart.train.data.rule import training_rule
from retinart.train.model.checkpoint import load_checkpoint
from retinart.train.validate import Validation
from support import ROOT, by_pycocotools

pytest.importorskip("pycocotools")

Command = Callable[..., CompletedProcess[str]]
SIZE = (256, 320)


def _compare(
    retinart: Command, checkpoint: Path, model: Path, annotations: Path, images: Path, folder: Path
) -> dict[str, float | None]:
    """The figures, after all four ways to them were compared."""
    saved, detected = folder / "saved.json", folder / "detected.json"
    data = ("--annotations", annotations)
    ran = retinart("eval", model, "--images", images, *data, "--save-results", saved, "--json")
    assert ran.returncode == 0, ran.stderr
    figures: dict[str, float | None] = json.loads(ran.stdout)["figures"]
    assert figures == by_pycocotools(annotations, saved)

    out = ("--out", folder / "out", "--coco", detected, *data)
    ran = retinart("detect", model, images, *out)
    assert ran.returncode == 0, ran.stderr
    assert printed(by_pycocotools(annotations, detected)) == printed(figures)

    network, variant, classes = load_checkpoint(checkpoint)
    validation = Validation(
        annotations=annotations,
        images=images,
        rule=training_rule(variant, SIZE),
        classes=tuple(classes),
    )
    validated = validation.run(network.eval(), variant).figures
    # PyTorch adds in another order than OpenVINO, which moves a score by 1e-6
    assert printed(validated) == printed(figures)
    return figures


def printed(figures: dict[str, float | None]) -> dict[str, str]:
    """As `retinart eval` prints them."""
    return {name: points(value) for name, value in figures.items()}


def test_one_model_has_one_set_of_figures(
    retinart: Command, tiny_path: Path, scenes: Path, tmp_path: Path
) -> None:
    checkpoint = ROOT / "train" / "assets" / "tiny.pt"
    images, path = scenes / "images", scenes / "instances.json"
    figures = _compare(retinart, checkpoint, tiny_path, path, images, tmp_path)
    assert figures["AP"] is not None and figures["AP"] > 0.5


def test_so_it_has_on_photographs(
    retinart: Command, shared: Callable[..., Path], tmp_path: Path
) -> None:
    """Twelve of BCCD's test pictures, with AP 57.2."""
    images, everything = shared("data", "bccd", "images"), shared("data", "bccd", "test.json")
    document = json.loads(everything.read_text())
    document["images"] = sorted(document["images"], key=lambda i: str(i["file_name"]))[:12]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in kept]
    path, model = tmp_path / "twelve.json", tmp_path / "bccd.onnx"
    path.write_text(json.dumps(document))
    few = tmp_path / "images"
    few.mkdir()
    for image in document["images"]:
        (few / image["file_name"]).symlink_to(images / image["file_name"])
    checkpoint = ROOT / "benchmarks" / "results" / "bccd" / "tiny.pt"
    settings = ExportSettings(height=SIZE[0], width=SIZE[1], tensorrt=False)
    export_checkpoint(checkpoint, model, settings)
    figures = _compare(retinart, checkpoint, model, path, few, tmp_path)
    assert points(figures["AP"]) == "57.2"
