"""Against outputs of five public RetinaNets: in PyTorch, and in what `retinart export` writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from golden_forms import D2, FORMS, MMDET, ODTK, OF_VARIANT, V1, V2, VARIANTS
from retinart.calib.placement import place
from retinart.calib.quantize import quantize
from retinart.cli import main
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import Tolerance, match
from retinart.engine.media.images import Image, read_image
from retinart.engine.model.info import CANDIDATES, HEADS, Compute, Thresholds, read_info
from retinart.engine.model.variant import Variant
from retinart.engine.runtime.nms import clip_boxes, detect_from_candidates
from retinart.engine.runtime.openvino_api import find_tensor, find_tensors, load_openvino
from retinart.export import tensorrt_rtx
from retinart.export.checkpoint import load_any
from retinart.train.model.boxes import decode
from retinart.train.model.predict import postprocess
from retinart.train.model.retinanet import variant_anchors

TOLERANCE = 1e-3
Array = npt.NDArray[Any]


class Exported(NamedTuple):
    """What the command made of a form."""

    path: Path
    want: dict[str, Array]
    variant: Variant
    padded: tuple[int, int]


@pytest.fixture(scope="module")
def arrays(shared: Callable[..., Path]) -> Callable[[str], dict[str, Array]]:
    """What a variant's own code computed, and `input`, what entered its network."""

    def load(variant: str) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for name in ("expected.npz", "network_input.npz"):
            with np.load(shared("golden", variant, name)) as file:
                found.update(file)
        return found

    return load


@pytest.fixture(scope="module")
def exported(
    public_model: Callable[[str], Path], arrays: Callable[[str], dict[str, Array]]
) -> Callable[[str], Exported]:
    """What `retinart export` makes of a form, once for all tests."""

    def export(name: str) -> Exported:
        path, want = public_model(name), arrays(FORMS[name].variant)
        height, width = want["input"].shape[2:]
        return Exported(path, want, read_info(path).variant, (height, width))

    return export


def compare_heads(want: dict[str, Array], logits: list[Array], deltas: list[Array]) -> None:
    for level in range(3, 8):
        for name, maps in (("cls", logits), ("box", deltas)):
            got = maps[level - 3].reshape(want[f"P{level}_{name}_shape"].astype(int))
            for part in ("", "_top") if name == "cls" else ("",):
                index = tuple(want[f"P{level}_{name}{part}_index"].T.astype(int))
                diff = np.abs(got[index] - want[f"P{level}_{name}{part}_value"]).max()
                assert diff <= TOLERANCE, f"P{level} {name}{part}: {diff}"


def reference(want: dict[str, Array]) -> Detections:
    result = Detections(
        xyxy=want["det_boxes"].astype(np.float32),
        confidence=want["det_scores"].astype(np.float32),
        class_id=want["det_labels"].astype(np.int32),
    )
    assert len(result) > 50
    return result


def image_size(want: dict[str, Array]) -> tuple[int, int]:
    """(height, width) of the part of the input that the image covers."""
    return int(want["image_size"][0]), int(want["image_size"][1])


def cut(found: Detections, size: tuple[int, int], *, plus_one: bool = False) -> Detections:
    return dataclasses.replace(found, xyxy=clip_boxes(found.xyxy, size, plus_one=plus_one))


@pytest.mark.parametrize("name", VARIANTS)
def test_pytorch(name: str, public_checkpoint: Any, arrays: Any) -> None:
    loaded, want = load_any(public_checkpoint(OF_VARIANT[name])), arrays(name)
    padded = want["input"].shape[2:]
    with torch.inference_mode():
        outputs = loaded.model(torch.from_numpy(want["input"]))
    compare_heads(want, [t.numpy() for t in outputs.logits], [t.numpy() for t in outputs.deltas])

    for level, got in zip(range(3, 8), variant_anchors(loaded.variant, padded), strict=True):
        assert len(got) == want[f"P{level}_anchors_count"]
        assert np.abs(got[:18] - want[f"P{level}_anchors"]).max() <= TOLERANCE
        assert np.abs(got[-9:] - want[f"P{level}_anchors_last"]).max() <= TOLERANCE

    sizes = [image_size(want)]
    found = postprocess(outputs, loaded.variant, padded, Thresholds(), sizes=sizes)
    assert match(reference(want), found[0]).same


@pytest.mark.parametrize("name", VARIANTS)
def test_exported_network(name: str, exported: Callable[[str], Exported]) -> None:
    """The file's own network, selection and decoding, fed behind its normalisation."""
    path, want, variant, padded = exported(OF_VARIANT[name])
    kept = 300 if name in (V1, V2) else 100
    assert read_info(path).thresholds.detections_per_img == variant.detections_per_img == kept
    x = want["input"] if variant.channel_order == "bgr" else want["input"][:, ::-1]
    tensors = run_fed(path, {"normalized": np.ascontiguousarray(x)}, (*HEADS, *CANDIDATES))
    compare_heads(want, [tensors[n] for n in HEADS[:5]], [tensors[n] for n in HEADS[5:]])

    edge = variant.clip_size(padded, image_size(want))
    boxes, scores = (tensors[tensor][0] for tensor in CANDIDATES)
    found = detect_from_candidates(
        boxes,
        scores,
        Thresholds(),
        plus_one=variant.box_plus_one,
        clip_to=edge if variant.clip_before_nms else None,
    )
    result = match(reference(want), cut(found, edge, plus_one=variant.box_plus_one))
    assert result.same, result


@pytest.mark.slow
def test_a_head_without_unused_classes(public_checkpoint: Any, arrays: Any, tmp_path: Path) -> None:
    """Its 720 channels are those of the 80 classes among torchvision's 819."""
    want, path = arrays(V1), tmp_path / "model.onnx"
    height, width = map(str, want["input"].shape[2:])
    size = ["--height", height, "--width", width, "--skip-tensorrt"]
    size += ["--drop-classes", "__background__,N/A"]
    checkpoint = str(public_checkpoint("torchvision"))
    assert main(["export", checkpoint, "-o", str(path), *size]) == 0
    info = read_info(path)
    x = np.ascontiguousarray(want["input"][:, ::-1])
    tensors = run_fed(path, {"normalized": x}, HEADS)
    assert tensors["logits_p3"].shape[1] == 720
    compared = 0
    for level in range(3, 8):
        anchors, classes, *grid = want[f"P{level}_cls_shape"].astype(int)
        logits = np.full((anchors, classes, *grid), np.nan, np.float32)
        logits[:, info.class_ids] = tensors[f"logits_p{level}"].reshape(anchors, 80, *grid)
        for part in ("cls", "cls_top"):
            found = logits[tuple(want[f"P{level}_{part}_index"].T.astype(int))]
            there = ~np.isnan(found)
            diff = np.abs(found - want[f"P{level}_{part}_value"])[there]
            assert diff.max() <= TOLERANCE, f"P{level} {part}"
            compared += int(there.sum())
    assert compared > 100


@pytest.mark.parametrize("name", VARIANTS)
def test_exported_anchors(name: str, exported: Callable[[str], Exported]) -> None:
    """Of each level the first 18 anchors and the last 9, which are made to score best."""
    path, want, variant, _ = exported(OF_VARIANT[name])
    feeds, counts = {}, [int(want[f"P{level}_anchors_count"]) for level in range(3, 8)]
    for i, level in enumerate(range(3, 8)):
        _, _, height, width = want[f"P{level}_cls_shape"].astype(int)
        rows = np.full((counts[i], variant.num_classes), -9, np.float32)  # as (y, x, anchor)
        wanted = [*range(18), *range(counts[i] - 9, counts[i])]
        rows[wanted] = np.arange(27, 0, -1, dtype=np.float32)[:, None]
        maps = rows.reshape(1, height, width, -1).transpose(0, 3, 1, 2)
        feeds[HEADS[i]] = np.ascontiguousarray(maps)
    got = run_fed(path, feeds, ("candidates/anchors",))
    starts = np.cumsum([0, *(min(1000, count) for count in counts)])
    for level, start in zip(range(3, 8), starts[:-1], strict=True):
        anchors = got["candidates/anchors"][0, start : start + 27]
        assert np.abs(anchors[:18] - want[f"P{level}_anchors"]).max() <= TOLERANCE
        assert np.abs(anchors[18:] - want[f"P{level}_anchors_last"]).max() <= TOLERANCE


def seen_in_image(found: Detections, image: Image) -> Detections:
    """Cut to the image, without those that lie outside of it."""
    found = cut(found, (image.shape[0], image.shape[1]))
    has_area = (found.xyxy[:, 2:] > found.xyxy[:, :2]).all(axis=1)
    return found[np.asarray(has_area, np.bool_)]


def in_source(want: dict[str, Array], image: Image) -> Detections:
    """A project's detections in the pixels of the picture."""
    named = {key.replace("det_orig", "det"): value for key, value in want.items()}
    return seen_in_image(reference({**want, **named}), image)


@pytest.mark.parametrize(("name", "least"), [(V1, 51), (V2, 93), (D2, 75), (ODTK, 86), (MMDET, 90)])
def test_from_picture_to_boxes(
    name: str,
    least: int,
    exported: Callable[[str], Exported],
    shared: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Through `retinart detect`; what torchvision's lack is explained below."""
    path, want, variant, _ = exported(OF_VARIANT[name])
    picture, out = shared("golden", "input.png"), tmp_path / "detected"
    assert main(["detect", str(path), str(picture), "--out", str(out), "--no-copies"]) == 0
    (line,) = (out / "detections.jsonl").read_text(encoding="utf-8").splitlines()
    rows = json.loads(line)["detections"]
    found = Detections(
        xyxy=np.array([row["box"] for row in rows], np.float32),
        confidence=np.array([row["score"] for row in rows], np.float32),
        class_id=np.array([row["class_id"] for row in rows], np.int32),
    )
    expected = in_source(want, read_image(picture))
    result = match(expected, found, Tolerance(score=0.01, corner=1.0))
    assert result.matched >= least, result
    if variant.interpolation != "float":  # the network saw the pixels that the project's own saw
        assert result.same and result.score_diff < 1e-3 and result.corner_diff < 0.5, result


@pytest.mark.parametrize(
    ("name", "runtime", "counts"),
    [
        (V1, "openvino", (53, 0, 0)),
        (V2, "openvino", (97, 0, 0)),
        (V1, "onnxruntime", (52, 1, 1)),  # NMS in the file knows the frame and not the image
    ],
)
def test_detector_on_torchvision_s_floats(
    name: str,
    runtime: Any,
    counts: tuple[int, ...],
    exported: Callable[[str], Exported],
    shared: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """What enters the network there is no 8-bit image: it stands in the file instead."""
    if runtime == "onnxruntime":
        pytest.importorskip(runtime)
    path, want, _, _ = exported(OF_VARIANT[name])
    image = read_image(shared("golden", "input.png"))
    path = seeing(path, want["input"], tmp_path / "seeing.onnx")
    compute: Compute = "fp32-direct" if runtime == "openvino" else "fp32"  # quicker to compile
    with Detector(path, runtime=runtime, compute=compute, cache=False) as detector:
        result = match(in_source(want, image), detector(image))
    assert (result.matched, result.missing, result.extra) == counts, result


def test_what_8_bits_cost_torchvision(
    exported: Callable[[str], Exported], shared: Callable[..., Path]
) -> None:
    """Rounding the resized picture loses some of v2's 97 detections; rounding the padding none."""
    path, want, variant, padded = exported(OF_VARIANT[V2])
    image = read_image(shared("golden", "input.png"))
    height, width = image_size(want)
    covered = np.zeros(want["input"].shape, np.bool_)
    covered[:, :, :height, :width] = True
    mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (variant.mean, variant.std))
    rounded = (np.rint(want["input"] * std + mean) - mean) / std
    x = np.concatenate([np.where(covered == inside, rounded, want["input"]) for inside in (0, 1)])
    x = np.ascontiguousarray(x[:, ::-1], np.float32)
    tensors = run_fed(path, {"normalized": x}, CANDIDATES)
    _, (resized,) = read_info(path).resize.apply([image])
    edge = variant.clip_size(padded, (height, width))
    boxes, scores = tensors.values()
    for i, (part, least, most) in enumerate([("padding", 97, 97), ("picture", 93, 96)]):
        inside = detect_from_candidates(boxes[i], scores[i], Thresholds(), clip_to=edge)
        found = resized.detections_to_source(inside)
        result = match(in_source(want, image), found, Tolerance(score=0.01, corner=1.0))
        print(f"the {part} in 8 bits: {result}")
        assert least <= result.matched <= most, result


def seeing(path: Path, x: Array, target: Path) -> Path:
    """A copy of a file whose network sees x (1, 3, H, W) RGB instead of the frames."""
    model = onnx.load(path)
    (normalize,) = (node for node in model.graph.node if "normalized" in node.output)
    model.graph.node.remove(normalize)
    bgr = np.ascontiguousarray(x[:, ::-1])
    model.graph.initializer.append(onnx.numpy_helper.from_array(bgr, "normalized"))
    onnx.save(model, target)
    return target


def test_both_files_of_detectron2_are_one_model(public_checkpoint: Any) -> None:
    pickled, saved = (load_any(public_checkpoint(f"detectron2 {n}")) for n in ("zoo", "training"))
    assert (pickled.variant, pickled.classes) == (saved.variant, saved.classes)
    weights = saved.model.state_dict()
    for key, value in pickled.model.state_dict().items():
        assert torch.equal(value, weights.pop(key)), key
    assert not weights


def test_int8_builds(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    """One of full size; tests/export/test_tensorrt_rtx.py builds small ones of all projects."""
    if not tensorrt_rtx.available():
        pytest.skip("TensorRT-RTX is not installed")
    source, path = exported("torchvision").path, tmp_path / "int8.onnx"
    model = onnx.load(source)
    placement = place(model)
    onnx.save(quantize(model, placement, dict.fromkeys(placement.activations, 3.0)), path)
    assert tensorrt_rtx.check_build(path, read_info(source)).plan_bytes > 0


def test_torchvision_before_0_13(
    golden: ModuleType, arrays: Any, public_checkpoint: Any, tmp_path: Path
) -> None:
    """Old names give the same tensors; their frozen norms have no epsilon."""
    path = tmp_path / "legacy.pth"
    torch.save(golden.load(V1, legacy=True), path)
    old, new, want = load_any(path), load_any(public_checkpoint("torchvision")), arrays(V1)
    assert (old.variant.bn_eps, new.variant.bn_eps) == (0.0, 1e-5)
    new_state = new.model.state_dict()
    for key, value in old.model.state_dict().items():
        assert torch.equal(value, new_state[key]), key
    with torch.inference_mode():
        outputs = old.model(torch.from_numpy(want["input"]))
    expected = reference({k.removeprefix("eps0_"): v for k, v in want.items() if "eps0_det" in k})
    padded, sizes = want["input"].shape[2:], [image_size(want)]
    found = postprocess(outputs, old.variant, padded, Thresholds(), sizes=sizes)
    assert match(expected, found[0]).same


def test_box_coding(exported: Callable[[str], Exported]) -> None:
    """Hand-made deltas far past the clamps, through each project's own decoder."""
    for name in VARIANTS:
        _, want, variant, _ = exported(OF_VARIANT[name])
        got = decode(
            torch.from_numpy(want["coder_deltas"]),
            torch.from_numpy(want["coder_anchors"]),
            clamp=variant.box_clamp,
            clamp_below=variant.box_clamp_below,
            plus_one=variant.box_plus_one,
        ).numpy()
        if variant.box_plus_one:  # that project's decoder clips, here to 256x384
            got = clip_boxes(got, (256, 384), plus_one=True)
        np.testing.assert_allclose(got, want["coder_boxes"], rtol=1e-5, atol=1e-3)


def run_fed(path: Path, feeds: dict[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
    """Tensors of a file when others of it are given."""
    openvino = load_openvino()
    core = openvino.Core()
    model = core.read_model(path)
    parameters = []
    for name, value in feeds.items():
        parameter = openvino.opset13.parameter(list(value.shape), np.float32, name)
        for target in find_tensor(model, name).get_target_inputs():
            target.replace_source_output(parameter.output(0))
        parameters.append(parameter)
    cut_out = openvino.Model(find_tensors(model, names), parameters, "cut")
    compiled = core.compile_model(cut_out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = compiled(dict(enumerate(feeds.values())))
    return {name: np.array(result[i]) for i, name in enumerate(names)}
