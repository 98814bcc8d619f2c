"""Whose checkpoint is it: recognition, safety, and errors that name what does not fit."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco_names import COCO_80, COCO_91, default_names
from retinart.export import checkpoint
from retinart.export.array_pickle import load_arrays
from retinart.export.checkpoint import load_any, recognise
from retinart.export.checkpoint_projects import PROJECTS
from retinart.train.model.checkpoint import load_checkpoint, save_checkpoint
from support import named, torchvision_state


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        path = tmp_path / "model.pth"
        torch.save(content, path)
        return path

    return write


def test_every_golden_file_is_one_project_s(shared: Callable[..., Path]) -> None:
    """Each file's keys match one record, every key has a place, and the way back."""
    want = {
        "torchvision_retinanet_resnet50_fpn": "torchvision retinanet_resnet50_fpn",
        "torchvision_retinanet_resnet50_fpn_v2": "torchvision retinanet_resnet50_fpn_v2",
        "detectron2_retinanet_R_50_FPN_3x": "detectron2",
        "odtk_ResNet50FPN": "odtk",
        "mmdetection_retinanet_r50_fpn": "mmdetection",
    }
    for variant, name in want.items():
        keys = list(json.loads(shared("golden", variant, "state_dict.json").read_text()))
        matching = [source for source in PROJECTS if source.matches(keys)]
        assert [source.name for source in matching] == [name]
        ours = [matching[0].translate(key) for key in keys]
        assert None not in ours
        back = [matching[0].original(key).replace("NAME", "ResNet50FPN") for key in ours if key]
        assert back == [key for key, mine in zip(keys, ours, strict=True) if mine]


def test_sizes_are_read_from_the_file(save: Callable[[Any], Path]) -> None:
    loaded = load_any(save({"state_dict": torchvision_state(num_classes=7)}))
    assert loaded.variant.backbone == "resnet18"
    assert loaded.variant.num_classes == 7
    assert loaded.variant.p6_from == "p5"
    assert loaded.classes == tuple(f"class_{i}" for i in range(7))


def test_ddp_prefix_is_removed(save: Callable[[Any], Path]) -> None:
    state = {f"module.{k}": v for k, v in torchvision_state().items()}
    assert load_any(save(state)).variant.num_classes == 5


def test_an_epsilon_that_nothing_tells_is_named(save: Callable[[Any], Path]) -> None:
    """Norms that learn count their batches. torchvision gives these 1e-5, frozen ones 1e-5 or 0."""
    state = torchvision_state()
    counted = {"backbone.body.bn1.num_batches_tracked": torch.tensor(7)}
    frozen = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert load_any(path := save(frozen)).assumed == ("bn_eps",)
    assert load_any(path, settings=("bn_eps=0",)).assumed == ()
    assert load_any(save(frozen | counted)).assumed == ()


@pytest.mark.parametrize("prefix", ["model.", "net.", "model.module.", "module.model."])
def test_words_before_every_key_are_removed(save: Callable[[Any], Path], prefix: str) -> None:
    """As Lightning's checkpoints have them, with what else stands in these files."""
    state = {f"{prefix}{k}": v for k, v in torchvision_state().items()}
    content = {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.ones(())}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "classes": 5},
    }
    assert load_any(save(content)).variant.num_classes == 5


def test_a_prefix_that_hides_no_known_project(save: Callable[[Any], Path]) -> None:
    path = save({"model.a.weight": torch.zeros(1), "model.b.weight": torch.zeros(1)})
    with pytest.raises(BadInput, match=r"its 2 tensors are called model\.a, model\.b, as in no"):
        load_any(path)


def test_names_of_coco() -> None:
    assert (len(COCO_80), len(COCO_91)) == (80, 91)
    assert COCO_91[1] == COCO_80[0] == "person"
    assert COCO_91[90] == COCO_80[79] == "toothbrush"
    assert (COCO_91[0], COCO_91[12]) == ("__background__", "N/A")
    assert default_names(80) == COCO_80
    assert default_names(2) == ("class_0", "class_1")


def test_weights_of_whole_numbers(save: Callable[[Any], Path]) -> None:
    state = torchvision_state()
    name = "backbone.body.layer2.0.bn1.bias"
    state[name] = torch.zeros(state[name].shape, dtype=torch.uint8)
    with pytest.raises(BadInput, match=rf"misshapen   {name} is of the type torch\.uint8"):
        load_any(save(state))


def test_all_that_does_not_fit_is_listed(save: Callable[[Any], Path]) -> None:
    state = torchvision_state()
    state["backbone.fpn.extra_blocks.p8.weight"] = torch.zeros(1)
    state["backbone.body.layer1.0.conv9.weight"] = torch.zeros(1)
    state["head.regression_head.conv.2.0.wieght"] = state.pop(
        "head.regression_head.conv.2.0.weight"
    )
    state["backbone.body.layer2.0.bn1.bias"] = torch.zeros(3)
    with pytest.raises(BadInput) as caught:
        load_any(save(state))
    text = str(caught.value)
    right, wrong = "head.regression_head.conv.2.0.weight", "head.regression_head.conv.2.0.wieght"
    assert text.splitlines()[0].endswith("its tensors do not fit: 5 differ:")
    assert text.splitlines()[1:] == [
        f"  missing     {right} (nearest in the file: {wrong})",
        "  unexpected  backbone.fpn.extra_blocks.p8.weight",
        "  unexpected  backbone.body.layer1.0.conv9.weight",
        f"  unexpected  {wrong} (nearest expected: {right})",
        "  misshapen   backbone.body.layer2.0.bn1.bias: 3, expected 128",
        "Nothing was loaded. Export from the file that the project itself saved.",
    ]


def test_other_sizes_are_named(save: Callable[[Any], Path]) -> None:
    fewer = save({k: v for k, v in torchvision_state().items() if "body.layer1.1." not in k})
    with pytest.raises(BadInput, match="retinart does not know the checkpoint's backbone"):
        load_any(fewer)
    for name, outputs in (("regression_head.bbox_reg", 24), ("classification_head.cls_logits", 46)):
        other = {f"head.{name}.weight": torch.zeros(outputs, 32, 3, 3)}
        with pytest.raises(BadInput, match=f"{outputs} .* has 9 anchors with 4 box outputs each"):
            load_any(save({**torchvision_state(), **other}))


class Hostile:
    """What unpickling would run, were it allowed to."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_hostile_pickles_do_nothing(suffix: str, tmp_path: Path) -> None:
    target, path = tmp_path / "made by the file", tmp_path / f"model{suffix}"
    content = {"model": Hostile(target)}
    if suffix == ".pth":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(BadInput, match="mkdir"):
        load_any(path)
    assert not target.exists()


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated(keep: float, noisy_checkpoint: Path, tmp_path: Path) -> None:
    data = noisy_checkpoint.read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(BadInput, match=r"truncated or not a torch file|refused to read"):
        load_any(path)


def test_own_checkpoints(noisy_checkpoint: Path, tmp_path: Path) -> None:
    model, variant, classes = load_checkpoint(noisy_checkpoint)
    again = tmp_path / "again.pt"
    save_checkpoint(again, model=model, variant=variant, classes=classes, training={"seed": 1})
    other, other_variant, other_classes = load_checkpoint(again)
    assert (variant, classes) == (other_variant, other_classes)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    with pytest.raises(BadInput, match="there is no checkpoint at"):
        load_any(tmp_path / "absent.pt")


def test_a_newer_checkpoint_is_refused(save: Callable[[Any], Path]) -> None:
    with pytest.raises(BadInput, match=r"version 9.*Upgrade"):
        load_any(save({"format": "retinart.checkpoint", "version": 9}))


def test_recognition_takes_no_partial_match() -> None:
    """v2's norms decide between the two torchvision files."""
    keys = [
        "head.classification_head.cls_logits.weight",
        "head.classification_head.conv.0.0.weight",
        "head.classification_head.conv.0.1.weight",
    ]
    state = {key: torch.zeros(1) for key in keys}
    assert recognise(state, Path("x")) is named("torchvision retinanet_resnet50_fpn_v2")
    del state[keys[2]]
    assert recognise(state, Path("x")) is named("torchvision retinanet_resnet50_fpn")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": None}, "'version' is missing or not of type int"),
        ({"state_dict": 3}, "'state_dict' is missing or not of type dict"),
        ({"classes": ["a"]}, "names 1 classes and its model has 3"),
        ({"variant": {"source": "x"}}, "is damaged: the field backbone is missing"),
        ({"variant": {"num_classes": -1}}, "num_classes is -1. Set a whole number, 1 to"),
        ({"variant": {"colour": 1}}, "the field colour is not known to this version"),
    ],
)
def test_damaged_records(
    change: dict[str, Any], message: str, noisy_checkpoint: Path, save: Callable[[Any], Path]
) -> None:
    content = torch.load(noisy_checkpoint, weights_only=True)
    if "variant" in change and "source" not in change["variant"]:
        change = {"variant": content["variant"] | change["variant"]}
    with pytest.raises(BadInput, match=message):
        load_any(save(content | change))


class Forged:
    """A pickle that builds an object array on bytes of its own, which NumPy would follow."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.ndarray, ((1,), "O", b"AAAAAAAA")


@pytest.mark.parametrize(
    "content",
    [Forged(), np.array([{}], dtype=object), np.array(["a"]), np.zeros(2, "datetime64[s]"), 3.5],
    ids=["forged", "objects", "text", "dates", "a number"],
)
def test_pickles_of_other_things_are_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": {"x": content}}))
    with pytest.raises(BadInput):
        load_any(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_array_pickles_of_every_protocol(protocol: int) -> None:
    arrays: dict[str, Any] = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        "c": np.float64(2.5),
        "d": [np.array([True, False]), "text"],
    }
    back = load_arrays(pickle.dumps(arrays, protocol))
    for key in "abc":
        assert np.array_equal(back[key], arrays[key]), key
    assert back["d"][0].tolist() == [True, False] and back["d"][1] == "text"


def test_damaged_pickles_never_crash() -> None:
    """Every byte of a pickle flipped in turn: an error or another array, but always a return."""
    data = pickle.dumps({"model": {"w": np.arange(4, dtype=np.float32)}}, 2)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        with contextlib.suppress(pickle.UnpicklingError, MemoryError):
            load_arrays(bytes(damaged))


def test_a_pickle_with_a_hole_is_followed_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02")
    os.truncate(path, 6 << 30)
    with pytest.raises(BadInput, match=r"a\.pkl: .* 1,073,741,824 are the most"):
        load_any(path)
    os.truncate(path, 1 << 30)
    monkeypatch.setattr(checkpoint, "read_bytes", None)
    with pytest.raises(BadInput, match=r"a\.pkl: it is damaged"):
        load_any(path)


def test_what_tensors_do_not_tell_can_be_set(save: Callable[[Any], Path]) -> None:
    path = save(torchvision_state())
    settings = ["bn_eps=0", "stride_in_1x1=true", "channel_order=bgr", "std=1,1,1", "box_clamp=2"]
    loaded = load_any(path, settings=settings)
    v = loaded.variant
    assert (v.bn_eps, v.stride_in_1x1, v.channel_order) == (0.0, True, "bgr")
    assert (v.std, v.box_clamp) == ((1, 1, 1), 2.0)
    norms = [m for m in loaded.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(m.eps == 0.0 for m in norms)
    assert load_any(path).variant.bn_eps == 1e-5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("colour=red", "does not set a field of the model. Fields: head_norm_groups"),
        ("num_classes=3", "does not set a field"),
        ("bn_eps=small", "has a value of another kind than 1e-05"),
        ("stride_in_1x1=1", "has a value of another kind than False"),
        ("std=1,1", "does not fit three channels"),
        ("channel_order=gbr", "channel_order is 'gbr'. Set rgb or bgr"),
    ],
)
def test_settings_that_make_no_sense(
    setting: str, message: str, save: Callable[[Any], Path]
) -> None:
    path = save(torchvision_state())
    with pytest.raises(BadInput, match=message):
        load_any(path, settings=[setting])


def test_own_checkpoints_say_all_themselves(noisy_checkpoint: Path) -> None:
    with pytest.raises(BadInput, match="holds all of its settings"):
        load_any(noisy_checkpoint, settings=["bn_eps=0"])
