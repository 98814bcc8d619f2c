"""Checkpoints of strangers: memory is bounded by the file, and each refusal names the file."""

from __future__ import annotations

import argparse
import dataclasses
import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retinart.engine.errors import BadInput
from retinart.train.model.checkpoint import load_checkpoint, load_resume_state
from retinart.train.model.torch_file import read_torch_file

Content = dict[str, Any]


def _rewritten(path: Path, change: Callable[[str, bytes], bytes], how: int = 0) -> None:
    """A zip with changed parts; `how` is the compression."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


@pytest.fixture
def own(noisy_checkpoint: Path) -> Content:
    content: Content = torch.load(noisy_checkpoint, weights_only=True)
    return content


def _state(name: str, tensor: torch.Tensor) -> Callable[[Content], Any]:
    return lambda content: content["state_dict"].update({name: tensor})


HEAD = "cls_head.convs.0.weight"
CHANGES: dict[str, tuple[Callable[[Content], Any], str]] = {
    "a stride of 0": (
        _state(HEAD, torch.zeros(1, dtype=torch.half).expand(64, 64, 3, 3)),
        "cls_head.convs.0.weight has 36,864 values, and the file holds fewer",
    ),
    "a huge stride of 0": (_state("x", torch.zeros(1).expand(1 << 31)), "2,147,483,648 values"),
    "complex": (_state(HEAD, torch.zeros(64, 64, 3, 3, dtype=torch.complex64)), "complex numbers"),
    "sparse": (_state(HEAD, torch.zeros(4, 4).to_sparse()), "of the kind torch.sparse_coo"),
    "meta": (_state(HEAD, torch.zeros(4, device="meta")), "damaged|refused|cannot read"),
    "an int key": (lambda c: c["state_dict"].update({5: torch.zeros(1)}), "holds 5"),
    "a text for a tensor": (lambda c: c["state_dict"].update({HEAD: "x"}), "not a named tensor"),
    "a wide network": (
        lambda c: c["variant"].update(fpn_channels=8192, head_convs=64),
        "do not fit its own settings",
    ),
    "many classes": (
        lambda c: (c["variant"].update(num_classes=100_000), c.update(classes=["a"] * 100_000)),
        "do not fit its own settings",
    ),
    "another shape": (_state(HEAD, torch.zeros(64, 64, 1, 1)), r"\(64, 64, 1, 1\), not"),
    "whole numbers": (
        _state(HEAD, torch.zeros(64, 64, 3, 3, dtype=torch.int64)),
        "is of the type torch.int64, and weights are floating-point numbers",
    ),
    "one missing": (lambda c: c["state_dict"].pop(HEAD), f"{HEAD} is missing"),
    "one too many": (_state("more", torch.zeros(1)), "more is unknown"),
    "lists as names": (lambda c: c.update(classes=[["a"], "b", "c"]), "name is not text"),
    "half a character": (lambda c: c.update(classes=["\ud800", "b", "c"]), "surrogate pair"),
    "a number as text": (lambda c: c["variant"].update(fpn_channels="64"), "a whole number"),
    "NaN": (lambda c: c["variant"].update(bn_eps=float("nan")), "not a finite number"),
    "std of 0": (lambda c: c["variant"].update(std=(0.0, 1.0, 1.0)), "std"),
    "far too many anchors": (
        lambda c: c["variant"].update(anchor_ratios=(1.0,) * 10_000), "30000 anchors"
    ),
    "an anchor of 0": (lambda c: c["variant"].update(anchor_ratios=(0.0,)), "anchor_ratios"),
    "variant keys": (lambda c: c.update(variant={1: 2}), "has to be an object"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_file_says_is_checked_before_a_network_is_made(
    name: str, own: Content, tmp_path: Path
) -> None:
    change, message = CHANGES[name]
    change(own)
    path = tmp_path / "own.pt"
    torch.save(own, path)
    with pytest.raises(BadInput, match=message) as raised:
        load_checkpoint(path)
    assert "own.pt" in str(raised.value)


def test_half_weights_are_loaded_as_float32(own: Content, tmp_path: Path) -> None:
    expected = {k: v.half() for k, v in own["state_dict"].items()}
    torch.save({**own, "state_dict": expected}, tmp_path / "half.pt")
    model, _, _ = load_checkpoint(tmp_path / "half.pt")
    found = model.state_dict()
    assert all(v.dtype in (torch.float32, torch.int64) for v in found.values())
    assert torch.equal(found[HEAD], expected[HEAD].float())
    assert not any(v.is_meta for v in found.values())


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before PyTorch 1.6"])
def test_both_forms_are_read(old: bool, tmp_path: Path) -> None:
    content: Content = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.ones(3).half(),
        "c": ["x", 1, None],
    }
    content["tied"] = content["a"][0]
    path = tmp_path / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    found = read_torch_file(path)
    assert torch.equal(found["tied"], content["a"][0]) and found["c"] == ["x", 1, None]


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before PyTorch 1.6"])
def test_a_tensor_longer_than_its_bytes(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(5)}, path, _use_new_zipfile_serialization=not old)
    longer = (b"K\x05", b"M\xff\xff")  # the number 5, and 65535

    def change(name: str, data: bytes) -> bytes:
        return data.replace(*longer) if name.endswith(".pkl") else data

    if old:
        path.write_bytes(path.read_bytes().replace(*longer))
    else:
        _rewritten(path, change)
    with pytest.raises(BadInput, match=r"cannot read the checkpoint .*a\.pt: .*tensor"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-30], "truncated"),
        (lambda data: data.replace(b"PK\x01\x02", b"PK\x01\x03"), "truncated|damaged"),
        (lambda data: b"PK\x05\x06" + bytes(18), "truncated"),
        (lambda data: b"", "truncated"),
        (lambda data: b"\x80\x02}.", "truncated|refused"),
    ],
)
def test_damaged_files(damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(5)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=message) as raised:
        read_torch_file(path)
    assert "a.pt" in str(raised.value)


def test_a_compressed_zip(tmp_path: Path) -> None:
    """Four bytes a MB: a few kB would become GBs."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(50_000)}, path)
    _rewritten(path, lambda name, data: data, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadInput, match="its parts are compressed"):
        read_torch_file(path)


@pytest.mark.parametrize("name", ["a/data/0", "a/DATA/0"])
def test_two_parts_of_one_name(name: str, tmp_path: Path) -> None:
    """PyTorch would take the shorter one, and read beyond its end."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(5)}, path)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two names
        archive.writestr(name, b"0000")
    with pytest.raises(BadInput, match="two of its parts have one name"):
        read_torch_file(path)


def test_a_bomb_in_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(5)}, path)
    laughs = b"]q\x00" + b"".join(
        b"]q" + bytes([i + 1]) + b"(" + 10 * (b"h" + bytes([i])) + b"e0" for i in range(30)
    )
    _rewritten(
        path, lambda name, data: laughs + b"h\x1e." if name.endswith(".pkl") else data
    )  # fmt: skip
    with pytest.raises(BadInput, match="refer to each other so often"):
        read_torch_file(path)


def test_devices_and_folders_are_not_read(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(BadInput, match=r"it is a (device|folder)"):
            read_torch_file(path)


def test_a_resume_state_of_another_type(own: Content, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({**own, "resume": [1, 2]}, path)
    with pytest.raises(BadInput, match="'resume' is not of type dict"):
        load_resume_state(path)


def test_a_file_of_torchvision_s_training_script(tmp_path: Path) -> None:
    """It holds the script's options, an `argparse.Namespace`, and what resuming needs."""
    model = torch.nn.Conv2d(3, 4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.zeros(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [16, 22])
    options = argparse.Namespace(lr=0.1, lr_steps=[16, 22], output_dir=tmp_path, resume=None)
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "args": options,
        "epoch": 3,
    }
    torch.save(content, path := tmp_path / "model_3.pth")
    found = read_torch_file(path)
    assert found["args"] == options and found["model"].keys() == {"weight", "bias"}
    options.mean = torch.zeros(1).expand(1 << 31)
    torch.save(content, path)
    with pytest.raises(BadInput, match="2,147,483,648 values"):
        read_torch_file(path)


def test_a_whole_model_is_refused_with_the_lines_that_help(tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), path := tmp_path / "whole.pth")
    with pytest.raises(BadInput) as caught:
        read_torch_file(path)
    text = str(caught.value)
    assert "wants to call torch.nn.modules.container.Sequential" in text
    assert "`model = torch.load(FILE, weights_only=False)`, then `torch.save(model." in text


def test_code_is_still_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(OrderedDict(a=dataclasses.dataclass), protocol=2))
    with pytest.raises(BadInput, match=r"wants to call dataclasses\.dataclass"):
        read_torch_file(path)
    buffer = io.BytesIO()
    torch.save({"a": dataclasses.dataclass}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(BadInput, match=r"wants to call dataclasses\.dataclass"):
        read_torch_file(path)
