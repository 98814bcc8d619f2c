"""Against outputs of five public RetinaNets, in PyTorch and in the exported file on OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from retinart.calib.calibrate import CalibrationSettings, calibrate
from retinart.engine.detections import Detections
from retinart.engine.info import CANDIDATES, HEADS, ModelInfo, Thresholds, read_info
from retinart.engine.matching import match
from retinart.engine.nms import detect_from_candidates
from retinart.engine.resize import ResizeRule
from retinart.engine.runners import find_tensor, load_openvino
from retinart.export import tensorrt_rtx
from retinart.export.checkpoint import Loaded, load_any
from retinart.export.onnx_model import build_onnx
from retinart.train.predict import postprocess
from retinart.train.retinanet import variant_anchors

TOLERANCE = 1e-3
VARIANTS = (
    "torchvision_retinanet_resnet50_fpn",
    "torchvision_retinanet_resnet50_fpn_v2",
    "detectron2_retinanet_R_50_FPN_3x",
    "odtk_ResNet50FPN",
    "mmdetection_retinanet_r50_fpn",
)
Array = npt.NDArray[Any]
CheckpointWriter = Callable[..., Path]
Arrays = Callable[[str], dict[str, Array]]


@pytest.fixture(scope="module")
def write_checkpoint(
    golden: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> CheckpointWriter:
    """Writes a variant's deterministic weights the way its project does."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def write(variant: str, *, legacy: bool = False) -> Path:
        path = folder / f"{variant}{'_legacy' if legacy else ''}.pth"
        if not path.exists():
            torch.save(golden.load(variant, legacy=legacy), path)
        return path

    return write


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


def compare_heads(want: dict[str, Array], logits: list[Array], deltas: list[Array]) -> None:
    for level in range(3, 8):
        for name, maps in (("cls", logits), ("box", deltas)):
            got = maps[level - 3].reshape(want[f"P{level}_{name}_shape"].astype(int))
            for part in ("", "_top") if name == "cls" else ("",):
                index = tuple(want[f"P{level}_{name}{part}_index"].T.astype(int))
                diff = np.abs(got[index] - want[f"P{level}_{name}{part}_value"]).max()
                assert diff <= TOLERANCE, f"P{level} {name}{part}: {diff}"


def compare_detections(want: dict[str, Array], got: Detections) -> None:
    reference = Detections(
        xyxy=want["det_boxes"].astype(np.float32),
        confidence=want["det_scores"].astype(np.float32),
        class_id=want["det_labels"].astype(np.int32),
    )
    assert len(reference) > 50
    result = match(reference, got)
    assert result.same, result


def limits(loaded: Loaded, want: dict[str, Array], padded: tuple[int, int]) -> tuple[int, int]:
    """What boxes are clipped to: odtk takes the padded size, the others the image's."""
    if loaded.variant.box_plus_one:
        return padded
    return int(want["image_size"][0]), int(want["image_size"][1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_pytorch(variant: str, write_checkpoint: CheckpointWriter, arrays: Arrays) -> None:
    loaded, want = load_any(write_checkpoint(variant)), arrays(variant)
    x = want["input"]
    padded = (x.shape[2], x.shape[3])
    with torch.inference_mode():
        outputs = loaded.model(torch.from_numpy(x))
    compare_heads(want, [t.numpy() for t in outputs.logits], [t.numpy() for t in outputs.deltas])

    for level, got in zip(range(3, 8), variant_anchors(loaded.variant, padded), strict=True):
        assert len(got) == want[f"P{level}_anchors_count"]
        assert np.abs(got[:18] - want[f"P{level}_anchors"]).max() <= TOLERANCE
        assert np.abs(got[-9:] - want[f"P{level}_anchors_last"]).max() <= TOLERANCE

    cap = Thresholds(detections_per_img=300)
    found = postprocess(
        outputs, loaded.variant, padded, cap, clip_size=limits(loaded, want, padded)
    )
    compare_detections(want, found[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_exported(
    variant: str,
    write_checkpoint: CheckpointWriter,
    arrays: Arrays,
    shared: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """The file's own network, selection and decoding, fed behind its normalisation."""
    loaded, want = load_any(write_checkpoint(variant)), arrays(variant)
    x = want["input"]
    padded = (x.shape[2], x.shape[3])
    path = tmp_path / "model.onnx"
    path.write_bytes(build_onnx(loaded.model, fixed_info(loaded, padded)).SerializeToString())
    if tensorrt_rtx.available():
        photo = CalibrationSettings(images=str(shared("golden", "input.png")), num=1)
        for file in (path, calibrate(path, tmp_path / "int8.onnx", photo).path):
            assert tensorrt_rtx.check_build(file, read_info(file), max_batch=4).plan_bytes > 0
    bgr = x if loaded.variant.channel_order == "bgr" else x[:, ::-1]
    tensors = run_normalized(path, np.ascontiguousarray(bgr), (*HEADS, *CANDIDATES))
    compare_heads(want, [tensors[n] for n in HEADS[:5]], [tensors[n] for n in HEADS[5:]])

    boxes, scores = (tensors[name][0] for name in CANDIDATES)
    height, width = limits(loaded, want, padded)
    edge = np.array([width, height] * 2, np.float32) - np.float32(loaded.variant.box_plus_one)
    found = detect_from_candidates(
        np.clip(boxes, 0, edge) if loaded.variant.clip_before_nms else boxes,
        scores,
        Thresholds(detections_per_img=300),
        plus_one=loaded.variant.box_plus_one,
    )
    clipped = Detections(
        xyxy=np.clip(found.xyxy, 0, edge), confidence=found.confidence, class_id=found.class_id
    )
    compare_detections(want, clipped)


def test_torchvision_before_0_13(write_checkpoint: CheckpointWriter) -> None:
    """Old names give the same tensors; their frozen norms have no epsilon."""
    old = load_any(write_checkpoint(VARIANTS[0], legacy=True))
    new = load_any(write_checkpoint(VARIANTS[0]))
    assert (old.variant.bn_eps, new.variant.bn_eps) == (0.0, 1e-5)
    new_state = new.model.state_dict()
    for key, value in old.model.state_dict().items():
        assert torch.equal(value, new_state[key]), key


def test_box_coding(write_checkpoint: CheckpointWriter, arrays: Arrays) -> None:
    """Hand-made deltas far past the clamps, through each project's own decoder."""
    from retinart.train.boxes import clip, decode

    for name in VARIANTS:
        variant, want = load_any(write_checkpoint(name)).variant, arrays(name)
        got = decode(
            torch.from_numpy(want["coder_deltas"]),
            torch.from_numpy(want["coder_anchors"]),
            clamp=variant.box_clamp,
            clamp_below=variant.box_clamp_below,
            plus_one=variant.box_plus_one,
        )
        if variant.box_plus_one:  # that project's decoder clips, here to 256x384
            got = clip(got, (256, 384), plus_one=True)
        np.testing.assert_allclose(got.numpy(), want["coder_boxes"], rtol=1e-5, atol=1e-3)


def fixed_info(loaded: Loaded, size: tuple[int, int]) -> ModelInfo:
    return ModelInfo(
        name="golden",
        classes=loaded.classes,
        precision="fp32",
        variant=loaded.variant,
        resize=ResizeRule(
            short_side=None, max_size=None, canvas=size, pad_multiple=32, pad_value=(0, 0, 0)
        ),
        min_size=size,
        max_size=size,
        thresholds=Thresholds(),
    )


def run_normalized(path: Path, x: Array, names: tuple[str, ...]) -> dict[str, Array]:
    """A file's tensors for an input (1, 3, H, W) that is put in behind the normalisation."""
    openvino = load_openvino()
    core = openvino.Core()
    model = core.read_model(path)
    after = find_tensor(model, "normalized")
    parameter = openvino.opset13.parameter(list(x.shape), np.float32, "normalized")
    for target in after.get_target_inputs():
        target.replace_source_output(parameter.output(0))
    cut = openvino.Model([find_tensor(model, n) for n in names], [parameter], "cut")
    result = core.compile_model(cut, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({0: x})
    return {name: np.array(result[i]) for i, name in enumerate(names)}
