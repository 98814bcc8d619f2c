"""Training that rounds as the INT8 file will."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from retinart.calib.sensitivity import noise_to_signal
from retinart.cli import main
from retinart.engine.errors import BadInput
from retinart.engine.media.images import read_image
from retinart.engine.model.info import HEADS
from retinart.engine.runtime.onnxruntime_runner import open_session
from retinart.train.model.checkpoint import load_checkpoint, save_checkpoint
from retinart.train.model.fake_quantize import FakeQuantized, _rounded_weight, read_rounding
from retinart.train.model.predict import normalize
from retinart.train.model.retinanet import RetinaNet
from retinart.train.settings import TrainSettings
from support import Once

SIZE = ["--height", "96", "--width", "128", "--skip-tensorrt"]


@pytest.fixture(scope="module")
def tuned(noisy_checkpoint: Path, int8_path: Path, once: Once) -> Path:
    """A folder with weights as a training may leave them, and their INT8 file."""

    def make(folder: Path) -> None:
        net, variant, classes = load_checkpoint(noisy_checkpoint)
        torch.manual_seed(8)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.weight.data.uniform_(-1.5, 1.5)[0] = 0
                module.bias.data.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            elif isinstance(module, nn.Conv2d):
                module.weight.data.mul_(1 + 0.1 * torch.randn_like(module.weight))
        path, exported = folder / "tuned.pt", folder / "tuned.onnx"
        save_checkpoint(path, model=net, variant=variant, classes=classes, training={})
        assert main(["export", str(path), "-o", str(exported), *SIZE]) == 0
        record = str(int8_path.with_suffix(".json"))
        calibrate = ["calibrate", str(exported), "--record", record, "--tuned"]
        assert main([*calibrate, "-o", str(folder / "tuned.int8.onnx")]) == 0

    return once("tuned", make)


@pytest.fixture
def rounds(tuned: Path, int8_path: Path) -> FakeQuantized:
    net, _, _ = load_checkpoint(tuned / "tuned.pt")
    return FakeQuantized(net, read_rounding(int8_path.with_suffix(".json"))).eval()


def _outputs(model: nn.Module, checkpoint: Path, frames: Any) -> dict[str, Any]:
    _, variant, _ = load_checkpoint(checkpoint)
    with torch.inference_mode():
        found = model(normalize(torch.from_numpy(frames), variant))
    return dict(zip(HEADS, [t.numpy() for t in (*found.logits, *found.deltas)], strict=True))


def test_the_file_computes_what_the_training_did(
    rounds: FakeQuantized, tuned: Path, small_scenes: Path
) -> None:
    frames = read_image(sorted(small_scenes.iterdir())[-1])[None]
    model = onnx.load(tuned / "tuned.int8.onnx")
    kept = [*HEADS, "fpn.output.0"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in kept)
    session = open_session(model.SerializeToString(), optimise=False)
    values = session.run(kept, {session.get_inputs()[0].name: frames})
    found: dict[str, Any] = dict(zip(HEADS, values, strict=False))
    expected = _outputs(rounds, tuned / "tuned.pt", frames)
    plain = _outputs(rounds.net, tuned / "tuned.pt", frames)
    rounding = noise_to_signal(plain, expected)
    assert rounding > 0.03, "the network rounds"
    print("NOISE", noise_to_signal(expected, found), rounding)
    assert noise_to_signal(expected, found) < 0.05 * rounding


def test_weights_are_the_file_s(rounds: FakeQuantized, tuned: Path) -> None:
    constants = {i.name: i for i in onnx.load(tuned / "tuned.int8.onnx").graph.initializer}
    net: RetinaNet = rounds.net
    for name, conv, norm in (
        ("backbone.layer2.0.conv1", *_pair(net.backbone)),
        ("cls_head.output", net.cls_head.output, None),
    ):
        scale = None
        if norm is not None:
            scale = (norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)).data
        weight = _rounded_weight(conv.weight, scale, 8).detach().double()
        if scale is not None:
            weight = weight * scale[:, None, None, None]
        integers, steps = (
            numpy_helper.to_array(constants[f"{name}.weight/{kind}"]) for kind in ("int8", "scale")
        )
        expected = integers * steps[:, None, None, None].astype(np.float64)
        assert np.allclose(weight.numpy(), expected, rtol=1e-5, atol=1e-7), name


def _pair(backbone: Any) -> tuple[nn.Conv2d, Any]:
    block = backbone.layer2[0]
    return block.conv1, block.bn1


@pytest.mark.parametrize("bits", [8, 7])
def test_gradients_pass_through_the_rounding_of_weights(bits: int) -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.manual_seed(1)).requires_grad_()
    rounded = _rounded_weight(weight, None, bits)
    assert len(set(rounded[0].flatten().tolist())) > 10 and not torch.equal(rounded, weight)
    loss = (rounded * torch.arange(4.0).view(-1, 1, 1, 1)).sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    assert torch.equal(gradient, torch.arange(4.0).view(-1, 1, 1, 1).expand_as(weight))


def test_the_command_trains_rounded(
    noisy_checkpoint: Path,
    int8_path: Path,
    tiny_scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, annotations = str(tiny_scenes / "images"), str(tiny_scenes / "instances.json")
    given = [
        "train", "--images", images, "--annotations", annotations, "--val-images", images,
        "--val-annotations", annotations, "--weights", str(noisy_checkpoint), "--quantize",
        str(int8_path.with_suffix(".json")), "--norm", "frozen", "--epochs", "1", "--batch", "4",
        "--height", "64", "--width", "64", "--lr", "0.01", "--warmup", "0", "--out", str(tmp_path),
    ]  # fmt: skip
    assert main(given) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'exp' / 'best.pt'}\n", "what export takes"
    before, _, _ = load_checkpoint(noisy_checkpoint)
    after, _, _ = load_checkpoint(tmp_path / "exp" / "last.pt")
    assert not torch.equal(before.fpn.p6.weight, after.fpn.p6.weight)
    first, last = (model.backbone.state_dict()["bn1.weight"] for model in (before, after))
    assert torch.equal(first, last)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"weights": None}, "only trained weights"),
        ({"norm": "batch"}, "batch norms that learn"),
        ({"precision": "bf16"}, "round twice"),
    ],
)
def test_settings_that_do_not_go_with_it(more: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"weights": Path("w.pt"), "norm": "frozen", **more}
    if given["weights"] is None:
        given["backbone_weights"] = Path("b.pt")
    with pytest.raises(BadInput, match=words):
        TrainSettings(annotations=Path("a"), images=Path("i"), quantize=Path("r.json"), **given)


def test_records_that_do_not_fit(int8_path: Path, tmp_path: Path, noisy_checkpoint: Path) -> None:
    content = json.loads(int8_path.with_suffix(".json").read_text())
    net, _, _ = load_checkpoint(noisy_checkpoint)
    for change, words in (
        ({"reads": {}}, "which nodes read"),
        ({"precision": "fp8"}, "is of fp8"),
        ({"reads": {"none": ["normalized", 0]}}, "no node none"),
    ):
        path = tmp_path / "record.json"
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(BadInput, match=words):
            FakeQuantized(net, read_rounding(path))
