"""Files without the classes that a checkpoint never predicts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from retinart.calib.calibrate import calibrate
from retinart.calib.settings import CalibrationSettings
from retinart.engine.describe import variant_rows
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco_names import COCO_80, COCO_91
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import Image
from retinart.engine.model.info import CANDIDATES, OUTPUTS, ModelInfo, read_info
from retinart.engine.self_test.check import check_model
from retinart.engine.self_test.picture import probe_picture
from retinart.export.drop_classes import dropped_classes
from retinart.export.efficient_nms import with_plugin
from retinart.export.export import export_checkpoint
from retinart.export.nms_plugin import with_nms_plugin
from retinart.export.settings import ExportSettings
from support import make_picture, write_images

UNUSED = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


@pytest.fixture(scope="module")
def pruned(noisy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of `model_path` without its middle class."""
    settings = ExportSettings(height=96, width=128, drop_classes="1", tensorrt=False)
    path = tmp_path_factory.mktemp("pruned") / "model.onnx"
    report = export_checkpoint(noisy_checkpoint, path, settings)
    assert report.parity.detections.matched > 100 and report.parity.native.same
    return path


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_detections_keep_their_class_ids(runtime: Any, pruned: Path, model_path: Path) -> None:
    """They are those of the whole network less the class."""
    pictures: list[Image] = [make_picture(seed) for seed in range(3)]
    seen = 0
    with (
        Detector(model_path, runtime=runtime, conf=0.85) as whole,
        Detector(pruned, runtime=runtime, conf=0.85) as less,
    ):
        assert less.classes == whole.classes
        for picture in pictures:
            want, found = whole(picture), less(picture)
            assert len(want) < 100  # nothing was cut
            keep = want.class_id != 1
            want = Detections(
                xyxy=want.xyxy[keep],
                confidence=want.confidence[keep],
                class_id=want.class_id[keep],
            )
            assert match(want, found).same
            seen += len(found)
            assert set(found.class_id) == {0, 2}
    assert seen > 20


def test_the_file(pruned: Path, model_path: Path) -> None:
    whole, info = read_info(model_path), read_info(pruned)
    assert info.dropped_classes == (1,) and info.class_ids == (0, 2)
    assert info.classes == whole.classes and info.variant.num_classes == 2
    assert ("  classes of the class head", "2") in variant_rows(info.variant)  # 3 have names
    weights = {i.name: i.dims for i in onnx.load(pruned).graph.initializer}
    assert weights["cls_head.output.weight"][0] == info.variant.num_anchors * 2
    assert info.probe is not None
    assert {row[5] for row in info.probe.detections} == {0, 2}


def test_the_self_test_knows_a_candidate_by_its_class_id(pruned: Path) -> None:
    """Class 2 is channel 1 here; class 1 has no channel."""
    with Detector(pruned, check=False) as detector:
        info = detector.info
        assert info.probe is not None
        frames, _ = info.resize.apply([probe_picture(info.probe.seed, info.probe.size)])
        tensors = detector.runner.tensors(CANDIDATES, frames)
        assert tensors is not None
        boxes, scores = (tensors[name][0] for name in CANDIDATES)
        best = scores[:, 1].argmax()
        for class_id, good in ((2.0, True), (1.0, False)):
            row = (*map(float, boxes[best]), float(scores[best, 1]), class_id)
            probe = dataclasses.replace(info.probe, candidates=(row,))
            assert check_model(detector.runner, info, "fp32", probe).good is good


@pytest.mark.parametrize("change", [with_plugin, with_nms_plugin])
def test_plugins_give_the_ids_too(
    change: Callable[[onnx.ModelProto, ModelInfo], onnx.ModelProto], pruned: Path, model_path: Path
) -> None:
    """The last step looks the class up, and a whole file has no such step."""
    for path, table in ((pruned, [0, 2]), (model_path, None)):
        graph = change(onnx.load(path), read_info(path)).graph
        maker = {name: node for node in graph.node for name in node.output}
        node = maker[maker[OUTPUTS[3]].input[0]]
        tables = {i.name: i for i in graph.initializer}
        assert (node.op_type == "Gather") == (table is not None)
        if table is not None:
            found = onnx.numpy_helper.to_array(tables[node.input[0]])
            assert found.tolist() == table


def test_int8_files_keep_them(pruned: Path, tmp_path: Path) -> None:
    images = CalibrationSettings(images=str(write_images(tmp_path, "0.png")), num=1)
    path = tmp_path / "int8.onnx"
    calibrate(pruned, path, images)
    assert read_info(path).dropped_classes == (1,)


NAMED = ("__background__", "cat", "N/A", "dog")


@pytest.mark.parametrize(
    ("classes", "settings", "sha256", "expected"),
    [
        (COCO_91, {}, "eeacb38b00", UNUSED),
        (COCO_91, {}, "5905b1c500", UNUSED),
        (COCO_91, {}, "0" * 64, ()),  # any model of 91 classes has these names
        (COCO_80, {}, "eeacb38b00", ()),
        (COCO_91, {"drop_classes": "none"}, "eeacb38b00", ()),
        (COCO_91, {"drop_classes": "0, 12"}, "eeacb38b00", (0, 12)),
        (COCO_91, {"drop_classes": "N/A"}, "0" * 64, UNUSED[1:]),
        (COCO_91, {"drop_classes": "cat,3"}, "0" * 64, (3, 17)),
        (NAMED, {"classes": NAMED}, "0" * 64, (0, 2)),
        (NAMED, {}, "0" * 64, ()),
        (("N/A",), {"classes": ("N/A",)}, "0" * 64, ()),
        (("background", "cat"), {"classes": ("background", "cat")}, "0" * 64, ()),
    ],
)
def test_which_are_left_out(
    classes: tuple[str, ...], settings: Any, sha256: str, expected: tuple[int, ...]
) -> None:
    assert dropped_classes(classes, ExportSettings(**settings), sha256) == expected


@pytest.mark.parametrize("choice", ["3", "-1", "cow", "", "0,,1"])
def test_a_wrong_list(choice: str) -> None:
    with pytest.raises(BadInput, match="none of this name or index"):
        dropped_classes(("a", "b", "c"), ExportSettings(drop_classes=choice), "0" * 64)


def test_no_class_is_left() -> None:
    with pytest.raises(BadInput, match="leaves no class"):
        dropped_classes(("a", "b"), ExportSettings(drop_classes="a,1"), "0" * 64)


@pytest.mark.parametrize("dropped", [[1, 0], [0, 0], [3], [-1]])
def test_damaged_metadata(dropped: list[int], pruned: Path) -> None:
    data = json.loads(read_info(pruned).to_json())
    data["dropped_classes"] = dropped
    data["variant"]["num_classes"] = 3 - len(dropped)
    with pytest.raises(BadInput, match="dropped classes"):
        ModelInfo.from_json(json.dumps(data), "x")
