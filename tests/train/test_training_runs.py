"""Whole runs: stopped and taken up again, in parts, in two processes, from other weights."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from retinart.cli import main
from retinart.engine.errors import BadInput
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings
from retinart.train.data.scenes import make_scenes
from retinart.train.data.settings import NO_AUGMENTATION, SceneSettings
from retinart.train.initial import load_backbone, start
from retinart.train.model.checkpoint import load_checkpoint, save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from retinart.train.settings import TrainSettings, read_settings
from retinart.train.trainer import train
from support import run_python, train_and_stop

SIZE = (64, 96)
CLASSES = ("disc", "square", "triangle", "star", "ring", "cross")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    settings = SceneSettings(size=SIZE, max_objects=3, radius=(10, 20))
    make_scenes(folder, num=12, seed=1, settings=settings)
    return folder


@pytest.fixture
def settings(scenes: Path, tmp_path: Path) -> Iterator[TrainSettings]:
    """One thread: two wait for each other where the machine is busy, and sums differ by them."""
    threads = torch.get_num_threads()
    yield TrainSettings(
        annotations=scenes / "instances.json", images=scenes / "images", name="run",
        runs=tmp_path / "runs", size=SIZE, epochs=2, batch_size=4, warmup_steps=2, lr=0.005,
        threads=1,
    )  # fmt: skip
    torch.set_num_threads(threads)


def _losses(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "results.csv").open() as file:
        return [(r["epoch"], r["cls_loss"], r["box_loss"]) for r in csv.DictReader(file)]


# A process that kills itself as soon as its first epoch is in results.csv.
KILLED = """
import os, signal, sys
from retinart.cli import main
from retinart.train.run_folder import RunFolder
real = RunFolder.record

def record(folder, rows):
    real(folder, rows)
    os.kill(os.getpid(), signal.SIGKILL)

RunFolder.record = record
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_that_was_killed_goes_on_with_the_same_losses(
    settings: TrainSettings, scenes: Path
) -> None:
    whole = replace(settings, name="whole", epochs=3)
    train(whole)
    command = [
        "train", "--images", str(scenes / "images"),
        "--annotations", str(scenes / "instances.json"), "--height", "64", "--width", "96",
        "--epochs", "3", "--batch", "4", "--warmup", "2", "--lr", "0.005",
        "--threads", "1", "--out", str(settings.runs), "--name", "killed",
    ]  # fmt: skip
    assert run_python("-c", KILLED, *command).returncode == -signal.SIGKILL
    folder = settings.runs / "killed"
    assert len(_losses(folder)) == 1
    assert main(["train", "--resume", str(folder)]) == 0
    assert _losses(folder) == _losses(settings.runs / "whole")
    states = [
        load_checkpoint(settings.runs / n / "last.pt")[0].state_dict() for n in ("whole", "killed")
    ]
    assert all(torch.equal(a, states[1][key]) for key, a in states[0].items())
    with pytest.raises(BadInput, match=r"is finished.*`weights`"):
        train(read_settings(folder), resume=True)


def test_a_run_does_not_go_on_with_other_annotations(
    settings: TrainSettings, tmp_path: Path
) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(settings.annotations.read_bytes())
    stopped = replace(settings, annotations=path)
    train_and_stop(stopped)
    path.write_text(path.read_text() + " ")
    with pytest.raises(BadInput, match="is not the file that the run began with"):
        train(read_settings(stopped.folder), resume=True)


def test_no_run_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no run.*there is no config\.json"):
        read_settings(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config\.json is not JSON"):
        read_settings(tmp_path)


def test_settings_come_back_from_their_file(settings: TrainSettings) -> None:
    odd = replace(
        settings, overrides={"anchor_ratios": (1.0,)}, val_annotations=Path("a"),
        val_images=Path("b"), multiscale=(0.5, 2.0),
    )  # fmt: skip
    assert TrainSettings.from_json(odd.to_json()) == odd
    with pytest.raises(BadInput, match="the field colour is not known"):
        TrainSettings.from_json({**odd.to_json(), "colour": 1})


def test_parts_of_a_batch_are_the_batch(settings: TrainSettings) -> None:
    """With GroupNorm, as batch norms see each part by itself."""
    plain = replace(settings, norm="group", epochs=1, augmentation=NO_AUGMENTATION)
    losses = []
    for name, parts in (("one", 1), ("two", 2)):
        train(replace(plain, name=name, accumulate=parts))
        losses.append([float(x) for x in _losses(plain.runs / name)[0]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_two_processes_are_as_one(settings: TrainSettings, scenes: Path) -> None:
    """The same global batch in two gloo processes gives the losses of one process."""
    one = replace(settings, norm="group", name="one")
    train(one)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "retinart", "train", "--images", str(scenes / "images"),
        "--annotations", str(scenes / "instances.json"), "--height", "64", "--width", "96",
        "--epochs", "2", "--batch", "4", "--warmup", "2", "--lr", "0.005", "--norm", "group",
        "--threads", "1", "--out", str(settings.runs), "--name", "two",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pairs = zip(_losses(settings.runs / "one"), _losses(settings.runs / "two"), strict=True)
    for ours, theirs in pairs:
        assert [float(x) for x in ours] == pytest.approx([float(x) for x in theirs], rel=1e-3)
    assert (
        torch.load(settings.runs / "two" / "last.pt", weights_only=True)["training"]["processes"]
        == 2
    )


def test_ap_is_measured_and_the_best_is_kept(
    settings: TrainSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    path = train(
        replace(
            settings,
            val_annotations=settings.annotations,
            val_images=settings.images,
            eval_every=2,
            epochs=3,
        )
    )
    with (path.parent / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["AP"]) for row in rows] == [False, True, True]
    best = path.parent / "best.pt"
    assert load_checkpoint(best)[2] == list(CLASSES)
    ap, epoch = max((float(row["AP"]), -int(row["epoch"])) for row in rows[1:])
    assert capfd.readouterr().err.splitlines()[-2:] == [
        f"best.pt has AP {100 * ap:.1f}, of epoch {-epoch} of 3",
        f"next: retinart export {best} -o model.onnx",
    ]


def test_frozen_batch_norms_stay_as_they_are(settings: TrainSettings, tmp_path: Path) -> None:
    begun = tmp_path / "begun.pt"
    variant = preset("tiny", 6)
    model = build_retinanet(variant)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(2.0)
    save_checkpoint(begun, model=model, variant=variant, classes=CLASSES, training={})
    path = train(replace(settings, weights=begun, norm="frozen", epochs=1))
    after = load_checkpoint(path)[0].state_dict()
    before = model.state_dict()
    norms = [key for key in before if "bn" in key and before[key].is_floating_point()]
    assert norms
    assert all(torch.equal(before[key], after[key]) for key in norms)
    assert not torch.equal(before["fpn.p6.weight"], after["fpn.p6.weight"])


def test_a_detector_of_other_classes_is_a_start(settings: TrainSettings, tmp_path: Path) -> None:
    """What it knows by name comes along, row by row; the rest of the class head is fresh."""
    variant = preset("tiny", 3)
    old = build_retinanet(variant)
    with torch.no_grad():
        old.cls_head.output.bias.copy_(torch.arange(27.0))  # type: ignore[union-attr]
    path = tmp_path / "old.pt"
    save_checkpoint(path, model=old, variant=variant, classes=["ring", "?", "disc"], training={})
    begun = start(replace(settings, weights=path), CLASSES)
    assert begun.variant.num_classes == 6
    assert begun.notes == ("weights of old.pt: it knows 2 of 6 classes",)
    bias = begun.model.cls_head.output.bias
    assert bias is not None
    rows = bias.view(9, 6)
    assert rows[:, 4].tolist() == [3.0 * a for a in range(9)]  # ring was the first of three
    assert rows[:, 0].tolist() == [3.0 * a + 2 for a in range(9)]  # disc the last
    assert rows[:, 1].tolist() == pytest.approx([-4.595] * 9, abs=1e-3)  # the prior
    assert torch.equal(begun.model.fpn.p7.weight, old.fpn.p7.weight)
    for change, message in (
        ({"model": "tiny"}, "has a model of its own"),
        ({"backbone_weights": path}, "has a backbone"),
        ({"norm": "group"}, "has batch norms"),
    ):
        with pytest.raises(BadInput, match=message):
            start(replace(settings, weights=path, **change), CLASSES)


def test_backbone_weights_under_torchvisions_names(tmp_path: Path) -> None:
    donor, backbone = (build_retinanet(preset("resnet18", 1)).backbone for _ in range(2))
    state = dict(donor.state_dict())
    path = tmp_path / "resnet18.pth"
    torch.save({**state, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}, path)
    assert load_backbone(backbone, path) == "backbone: 120 tensors from resnet18.pth"
    assert all(
        torch.equal(a, b)
        for a, b in zip(donor.state_dict().values(), backbone.state_dict().values(), strict=True)
    )

    before = backbone.get_parameter("conv1.weight").clone()
    misfit = {f"module.{key}": value for key, value in state.items()}
    del misfit["module.layer1.0.conv1.weight"]
    misfit["module.layer1.0.conv_1.weight"] = state["layer1.0.conv1.weight"]
    misfit["module.conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save({"state_dict": misfit}, path)
    with pytest.raises(BadInput) as error:
        load_backbone(backbone, path)
    for part in (
        "layer1.0.conv1.weight is missing (nearest: layer1.0.conv_1.weight)",
        "layer1.0.conv_1.weight is unknown", "conv1.weight is (64, 1, 7, 7), not (64, 3, 7, 7)",
    ):  # fmt: skip
        assert part in str(error.value)
    assert torch.equal(backbone.get_parameter("conv1.weight"), before)
    torch.save([1], path)
    with pytest.raises(BadInput, match="holds no state_dict"):
        load_backbone(backbone, path)


def test_a_backbone_with_group_norm_is_exported(settings: TrainSettings) -> None:
    path = train(replace(settings, norm="group", epochs=1))
    assert load_checkpoint(path)[1].backbone_norm_groups == 16
    size = ExportSettings(height=64, width=96, tensorrt=False)
    report = export_checkpoint(path, path.with_suffix(".onnx"), size)
    assert report.path.is_file()


@pytest.mark.parametrize(("precision", "size"), [("bf16", (192, 192)), ("fp16", (64, 64))])
def test_half_precision_trains(
    settings: TrainSettings, precision: Literal["bf16", "fp16"], size: tuple[int, int]
) -> None:
    """bf16 not smaller: there PyTorch 2.13's CPU gradient of a strided convolution is NaN."""
    folder = settings.runs / "two"  # fp16 is slow on a CPU
    make_scenes(folder, num=2, seed=1, settings=SceneSettings(size=SIZE, max_objects=3))
    path = train(
        replace(
            settings, annotations=folder / "instances.json", images=folder / "images", epochs=1,
            batch_size=2, precision=precision, size=size,
        )
    )  # fmt: skip
    assert torch.isfinite(load_checkpoint(path)[0].fpn.p7.weight).all()
