"""The plugin form of NMS gives what the file's own NMS gives, on outputs of whole models.

No plugin runs here: the graph round it runs in ONNX Runtime, and in the plugin's place stands the
NumPy reference of `efficient_nms.py`. That TensorRT's parser takes the node, TensorRT-RTX is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from efficient_nms import efficient_nms
from plugin_parser import check_attributes
from retinart.engine.detections import Detections
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import Image, read_image
from retinart.engine.model.info import INPUT, NORMALIZED, OUTPUTS, ModelInfo, Thresholds, read_info
from retinart.export.efficient_nms import PLUGIN, above, plugin_attributes, with_plugin
from retinart.export.settings import ExportSettings
from support import export_unchecked, make_picture

Array = npt.NDArray[Any]
Run = Callable[[Image], list[Array]]


def plugin_form(path: Path) -> Run:
    """The outputs of a file's plugin form, with the reference in the plugin's place."""
    info = read_info(path)
    model = with_plugin(onnx.load(path), info)
    onnx.checker.check_model(model)
    nodes = list(model.graph.node)
    (at,) = (i for i, node in enumerate(nodes) if node.op_type == PLUGIN)
    plugin = nodes[at]
    attributes = {a.name: helper.get_attribute_value(a) for a in plugin.attribute}
    assert attributes.pop("plugin_version") == b"1" and attributes.pop("plugin_namespace") == b""
    kinds = (TensorProto.INT32, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32)
    found = [
        helper.make_tensor_value_info(n, t, None) for n, t in zip(plugin.output, kinds, strict=True)
    ]
    read_after = {name for node in nodes[at + 1 :] for name in node.input}
    sizes = [NORMALIZED] if NORMALIZED in read_after else []  # boxes are clipped to its size
    image = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in sizes]
    before = _part(model, nodes[:at], list(model.graph.input), [*plugin.input, *sizes])
    after = _part(model, nodes[at + 1 :], [*image, *found], list(OUTPUTS))

    def run(frames: Image) -> list[Array]:
        boxes, scores, *rest = before.run(None, {INPUT: frames})
        values = efficient_nms(boxes, scores, **attributes)
        feeds = dict(zip([*plugin.output, *sizes], [*values, *rest], strict=True))
        wanted = {i.name for i in after.get_inputs()}
        return list(after.run(None, {k: v for k, v in feeds.items() if k in wanted}))

    return run


def _part(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[str]
) -> onnxruntime.InferenceSession:
    """Some nodes of a model, on their own."""
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "part",
        [i for i in inputs if i.name in used],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        initializer=[t for t in model.graph.initializer if t.name in used],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return onnxruntime.InferenceSession(
        part.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def native_form(path: Path) -> Run:
    """The outputs of the file as it is."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda frames: list(session.run(list(OUTPUTS), {INPUT: frames}))


def compare(path: Path, frames: Image) -> int:
    """See that both forms detect the same in each frame; returns how many detections matched."""
    limit, matched = read_info(path).thresholds.detections_per_img, 0
    native, plugin = native_form(path)(frames), plugin_form(path)(frames)
    for a, b in zip(native, plugin, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
    for image in range(len(frames)):
        want, got = (
            Detections(xyxy=b[image, :n], confidence=s[image, :n], class_id=c[image, :n])
            for (count, b, s, c) in (native, plugin)
            for n in [int(count[image, 0])]
        )
        floor = float(want.confidence[-1]) if len(want) == limit else 0.0
        result = match(want, got, floor=floor)
        assert result.same, result
        assert len(want) == len(got)
        matched += result.matched
    return matched


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize(
    ("plus_one", "clip_first"),
    [(False, True), (False, False), (True, False)],
    ids=["plain", "clip-after", "plus-one"],
)
def test_every_convention(
    plus_one: bool, clip_first: bool, dynamic: bool, changed_path: Callable[..., Path]
) -> None:
    path = changed_path(dynamic=dynamic, box_plus_one=plus_one, clip_before_nms=clip_first)
    assert compare(path, np.stack([make_picture(seed) for seed in range(3)])) > 100


def test_a_low_threshold(noisy_checkpoint: Path, tmp_path: Path) -> None:
    """The plugin then counts pairs that do not pass it as detections."""
    settings = ExportSettings(
        height=96, width=128, conf=0.006, iou=0.001, max_det=1000, tensorrt=False
    )
    path = export_unchecked(noisy_checkpoint, tmp_path / "model.onnx", settings)
    frames = np.stack([make_picture(seed) for seed in range(3)])
    count, _, scores, _ = plugin_form(path)(frames)
    rows = np.arange(scores.shape[1]) < count
    assert (scores[rows] > 0.006).all() and not (scores[~rows] > 0.006).any()
    assert (scores[~rows] == -32768).any()


def test_a_public_model(public_model: Callable[[str], Path], shared: Callable[..., Path]) -> None:
    path = public_model("torchvision")
    frames, _ = read_info(path).resize.apply([read_image(shared("golden", "input.png"))])
    assert compare(path, frames) > 20


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 1.0])
def test_at_least_becomes_above(threshold: float) -> None:
    t = above(threshold)
    exact = np.float32(threshold)
    values = np.array([exact - 1e-3, exact, np.nextafter(exact, np.float32(2)), 1], np.float32)
    np.testing.assert_array_equal(values >= np.float32(t), values > np.float32(threshold))


def test_the_reference_itself() -> None:
    """By hand: an IoU of exactly 1/3, a tie, another class, a background class, the limit."""
    corners = [[0, 0, 2, 1], [1, 0, 3, 1], [1, 0, 3, 1], [9, 9, 9, 9], [5, 5, 6, 6]]
    boxes = np.array(corners, np.float32)
    scores = np.array([[0.9, 0], [0.8, 0], [0, 0.7], [0.6, 0], [0.5, 0.5]], np.float32)

    def run(**changes: Any) -> list[tuple[float, int]]:
        settings: dict[str, Any] = plugin_attributes(_info()) | changes
        count, _, kept, labels = efficient_nms(boxes[None], scores[None], **settings)
        n = int(count[0, 0])
        assert not kept[0, n:].any()
        return [
            (round(float(s), 2), int(c)) for s, c in zip(kept[0, :n], labels[0, :n], strict=True)
        ]

    rest = [(0.7, 1), (0.6, 0), (0.5, 0), (0.5, 1)]
    third = float(np.float32(1) / np.float32(3))
    assert run(iou_threshold=third) == [(0.9, 0), *rest]
    assert run(iou_threshold=above(third)) == [(0.9, 0), (0.8, 0), *rest]
    assert run(score_threshold=0.5, background_class=1)[-1] == (0.5, 0)
    assert run(score_threshold=above(0.5))[-1] == (0.6, 0)
    low = run(score_threshold=0.006)[-2:]  # what overlaps with no kept box of its class
    assert low == [(-32768.0, 1)] * 2
    assert run(max_output_boxes=2) == [(0.9, 0), (0.8, 0)]


def test_the_parser_hands_the_attributes_to_the_plugin(model_path: Path, tmp_path: Path) -> None:
    """TensorRT-RTX's parser finds our plugin and gives it our values."""
    info, path = read_info(model_path), tmp_path / "plugin.onnx"
    onnx.save(with_plugin(onnx.load(model_path), info), path)
    check_attributes(path, PLUGIN, "", plugin_attributes(info))


def _info() -> ModelInfo:
    from retinart.engine.model.resize_rule import ResizeRule
    from retinart.train.model.presets import preset

    return ModelInfo(
        name="two",
        classes=("a", "b"),
        precision="fp32",
        variant=preset("tiny", 2),
        resize=ResizeRule(
            short_side=None, max_size=None, canvas=(96, 128), pad_multiple=32, pad_value=(0, 0, 0)
        ),
        min_size=(96, 128),
        max_size=(96, 128),
        thresholds=Thresholds(),
    )
