"""Training: batches, schedule, a run that learns, and runs that break off."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pytest
import torch

import retinart.train.learner as learner
import retinart.train.loss.criterion as criterion
from retinart.engine.errors import BadInput, CheckFailed
from retinart.engine.evaluation.coco import CocoDataset, load_coco
from retinart.train.average import Average
from retinart.train.data.batches import Batch, Batches, prefetch
from retinart.train.data.rule import training_rule
from retinart.train.data.scenes import make_scenes
from retinart.train.data.settings import NO_AUGMENTATION, Augmentation, SceneSettings
from retinart.train.model.backbones import BACKBONES
from retinart.train.model.checkpoint import load_checkpoint, load_resume_state
from retinart.train.model.predict import normalize
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from retinart.train.schedule import learning_rate
from retinart.train.settings import TrainSettings
from retinart.train.trainer import train

SIZE = (96, 128)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    settings = SceneSettings(size=SIZE, max_objects=4, radius=(12, 30))
    make_scenes(folder, num=12, seed=1, settings=settings)
    return folder


@pytest.fixture
def settings(scenes: Path, tmp_path: Path) -> TrainSettings:
    return TrainSettings(
        annotations=scenes / "instances.json",
        images=scenes / "images",
        name="run",
        runs=tmp_path / "runs",
        size=SIZE,
        epochs=2,
        batch_size=6,
        warmup_steps=2,
        augmentation=NO_AUGMENTATION,
    )


def _batches(scenes: Path, augmentation: Augmentation, *, seed: int = 0) -> Batches:
    return Batches(
        load_coco(scenes / "instances.json", scenes / "images"),
        rule=training_rule(preset("tiny", 6), SIZE),
        batch_size=5,
        seed=seed,
        augmentation=augmentation,
    )


def test_batches_are_the_same_for_a_seed_and_differ_by_step_and_epoch(scenes: Path) -> None:
    batches, again = _batches(scenes, Augmentation()), _batches(scenes, Augmentation())
    assert batches.steps_per_epoch == 2
    for step in (3, 0):
        assert torch.equal(batches[step].frames, again[step].frames)
    assert batches[0].frames.shape == (5, *SIZE, 3)
    assert batches[0].frames.dtype == torch.uint8
    assert not set(batches[0].paths) & set(batches[1].paths)  # no image twice in an epoch
    assert batches[0].paths != batches[2].paths
    assert _batches(scenes, Augmentation(), seed=1)[0].paths != batches[0].paths


def test_prefetching_changes_nothing(scenes: Path) -> None:
    batches = _batches(scenes, Augmentation())
    for workers in (0, 1, 3):
        got = list(prefetch(batches, range(1, 7), workers=workers))
        assert len(got) == 6
        for step, batch in zip(range(1, 7), got, strict=True):
            assert torch.equal(batch.frames, batches[step].frames)


def test_a_training_resizes_as_its_model_s_variant_says() -> None:
    ours = preset("tiny", 6)
    theirs = replace(ours, interpolation="pillow", size_rounding="nearest")
    for variant in (ours, theirs):
        rule = training_rule(variant, SIZE)
        assert rule.interpolation == variant.interpolation
        assert rule.size_rounding == variant.size_rounding
    assert (ours.interpolation, ours.size_rounding) == ("opencv", "floor")


def test_an_error_in_a_loading_thread_arrives_as_it_is(scenes: Path, tmp_path: Path) -> None:
    for path in (scenes / "images").iterdir():
        (tmp_path / path.name).write_bytes(b"no image")
    dataset = load_coco(scenes / "instances.json", tmp_path)
    rule = training_rule(preset("tiny", 6), SIZE)
    batches = Batches(dataset, rule=rule, batch_size=2, seed=0, augmentation=NO_AUGMENTATION)
    with pytest.raises(BadInput, match="cannot decode the image"):
        list(prefetch(batches, range(2), workers=2))


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(flip=1.0, color=0.0, scale=(1.0, 1.0)),
        Augmentation(flip=0.0, flip_vertical=1.0, color=0.0, scale=(1.0, 1.0)),
        Augmentation(flip=0.0, color=0.0, scale=(0.5, 0.7)),
        Augmentation(flip=0.5, color=0.0, scale=(1.2, 1.6)),
    ],
    ids=["mirrored", "upside down", "smaller", "cut"],
)
def test_boxes_follow_the_pixels(augmentation: Augmentation, tmp_path: Path) -> None:
    """On one white rectangle on black, the box must hold it all and nothing else."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[30:70, 40:90] = 255
    cv2.imwrite(str(tmp_path / "a.png"), image)
    (tmp_path / "i.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png", "height": 96, "width": 128}],'
        '"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [40, 30, 50, 40]}],'
        '"categories": [{"id": 1, "name": "x"}]}'
    )
    dataset = load_coco(tmp_path / "i.json", tmp_path)
    rule = replace(training_rule(preset("tiny", 1), SIZE), pad_value=(0, 0, 0))
    batches = Batches(dataset, rule=rule, batch_size=4, seed=0, augmentation=augmentation)
    places = set()
    for step in range(12):
        batch = batches[step]
        ys, xs = np.nonzero(batch.frames[0, :, :, 0].numpy() > 127)
        box = batch.objects[0].boxes[0].numpy()
        np.testing.assert_allclose(
            box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], rtol=0, atol=1.01
        )
        places.add(tuple(box.round().tolist()))
    assert (len(places) == 1) == (augmentation.scale == (1.0, 1.0))


def test_an_object_that_a_cut_hides_is_ignored(scenes: Path) -> None:
    cut = Augmentation(flip=0.0, color=0.0, scale=(2.5, 3.0), min_visible=0.6)
    batches = _batches(scenes, cut)
    objects = [o for step in range(20) for o in batches[step].objects]
    boxes, crowd = (torch.cat([o[i] for o in objects]) for i in (0, 2))
    assert crowd.any()
    assert not crowd.all()
    size = boxes[:, 2:] - boxes[:, :2]
    assert (size[~crowd] > 0).all()


def test_normalizing_uses_the_variants_colours() -> None:
    frame = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 3)  # B, G, R
    tiny = replace(preset("tiny", 1), mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 5.0))
    assert normalize(frame, tiny).flatten().tolist() == pytest.approx([29 / 2, 18 / 4, 7 / 5])
    bgr = replace(tiny, channel_order="bgr")
    assert normalize(frame, bgr).flatten().tolist() == pytest.approx([9 / 2, 18 / 4, 27 / 5])


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [learning_rate(i, 100, peak=1.0, warmup_steps=10) for i in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[55] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.0)
    assert max(learning_rate(i, 4, peak=1.0, warmup_steps=10) for i in range(4)) <= 1.0


def test_the_average_follows_the_weights() -> None:
    model = build_retinanet(preset("tiny", 1))
    weight = model.fpn.p7.weight
    average = Average(model, 0.5)
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    for _ in range(30):
        average.update(model)
    torch.testing.assert_close(average.model.fpn.p7.weight, before + 1)
    last = Average(model, 0.0)
    with torch.no_grad():
        weight += 1
    last.update(model)
    assert torch.equal(last.model.fpn.p7.weight, weight)
    torch.testing.assert_close(average.model.fpn.p7.weight, before + 1)  # a copy of its own


def test_the_step_schedule_takes_a_tenth_at_each_milestone() -> None:
    rates = [
        learning_rate(i, 90, peak=1.0, warmup_steps=0, schedule="step", milestones=(2 / 3, 8 / 9))
        for i in (0, 59, 60, 79, 80, 89)
    ]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def _boxes_in_a_file(folder: Path, sizes: list[tuple[int, int]]) -> CocoDataset:
    """Images of (height, width) in `sizes`, black."""
    for i, (height, width) in enumerate(sizes):
        cv2.imwrite(str(folder / f"{i}.png"), np.zeros((height, width, 3), np.uint8))
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": h, "width": w}
            for i, (h, w) in enumerate(sizes)
        ],
        "annotations": [],
        "categories": [{"id": 1, "name": "x"}],
    }
    (folder / "i.json").write_text(json.dumps(content))
    return load_coco(folder / "i.json", folder)


def test_tall_images_get_batches_and_an_input_of_their_own(tmp_path: Path) -> None:
    dataset = _boxes_in_a_file(tmp_path, [(40, 60), (60, 40)] * 3)
    rule = training_rule(preset("tiny", 1), (64, 96))

    def sizes(batch_size: int, aspect: bool) -> list[tuple[int, ...]]:
        batches = Batches(
            dataset, rule=rule, batch_size=batch_size, seed=0, augmentation=NO_AUGMENTATION,
            aspect_batches=aspect,
        )  # fmt: skip
        return [tuple(batches[i].frames.shape[1:3]) for i in range(batches.steps_per_epoch)]

    assert sorted(sizes(3, True)) == [(64, 96), (96, 64)]
    assert sizes(3, False) == [(64, 96)] * 2
    assert sizes(4, True) == [(64, 96)]  # three of a kind fill no batch: they are not left out


def test_scales_vary_by_step_and_boxes_with_them(scenes: Path) -> None:
    batches = Batches(
        load_coco(scenes / "instances.json", scenes / "images"),
        rule=training_rule(preset("tiny", 6), SIZE), batch_size=4, seed=0,
        augmentation=NO_AUGMENTATION, multiscale=(0.5, 1.5),
    )  # fmt: skip
    shapes = {tuple(batches[i].frames.shape[1:3]) for i in range(20)}
    assert len(shapes) > 3
    assert all(h % 32 == w % 32 == 0 and 32 <= h <= 160 for h, w in shapes)


def test_the_shares_of_two_processes_are_the_batch_of_one(scenes: Path) -> None:
    dataset = load_coco(scenes / "instances.json", scenes / "images")

    def batch(share: Callable[[Sequence[int]], Sequence[int]]) -> Batch:
        rule = training_rule(preset("tiny", 6), SIZE)
        return Batches(
            dataset, rule=rule, batch_size=4, seed=3, augmentation=Augmentation(), share=share
        )[1]

    whole, even, odd = batch(lambda x: x), batch(lambda x: x[::2]), batch(lambda x: x[1::2])
    assert torch.equal(whole.frames[::2], even.frames)
    assert torch.equal(whole.frames[1::2], odd.frames)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_every_backbone_has_a_preset(name: str) -> None:
    variant = preset(name, 3)
    assert (variant.backbone, variant.num_classes) == (name, 3)
    assert variant.num_anchors == 9


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"unknown model 'resnet9'.*Choose one of: tiny, resnet18"):
        preset("resnet9", 3)


def test_a_run_learns_and_its_checkpoint_loads(
    settings: TrainSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    path = train(replace(settings, epochs=8, ema_decay=0.5), command="retinart train ...")
    assert path == settings.runs / "run" / "last.pt"
    model, variant, classes = load_checkpoint(path)
    assert (variant.source, variant.backbone, len(classes)) == ("retinart", "tiny", 6)
    assert not model.training
    with (path.parent / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows]
    assert len(losses) == 8
    assert losses[-1] < 0.75 * losses[0]
    assert {p.name for p in path.parent.iterdir() if "tfevents" not in p.name} == {
        "config.json", "curves.png", "environment.json", "last.pt", "predictions.jpg", "results.csv"
    }  # fmt: skip
    training = torch.load(path, weights_only=True)["training"]
    assert training["command"] == "retinart train ..."
    assert training["settings"]["seed"] == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "instances.json: 12 images" in err
    assert "epoch 8/8: loss" in err
    assert "no best.pt: " in err and err.endswith(f"next: retinart export {path} -o model.onnx\n")


def test_the_same_seed_gives_the_same_weights(settings: TrainSettings) -> None:
    states = []
    for name in ("a", "b"):
        path = train(replace(settings, name=name, epochs=1, threads=torch.get_num_threads()))
        states.append(torch.load(path, weights_only=True)["state_dict"])
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_a_nan_stops_and_keeps_the_last_epoch(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = criterion.detection_loss, []

    def poisoned(*args: object, **kwargs: object) -> object:
        losses = original(*args, **kwargs)  # type: ignore[arg-type]
        calls.append(1)
        return losses._replace(cls=losses.cls * math.nan) if len(calls) == 4 else losses

    monkeypatch.setattr(learner, "detection_loss", poisoned)
    with pytest.raises(CheckFailed, match=r"NaN or infinite at step 4.*\.jpg.*Lower the lea") as e:
        train(settings)
    assert e.value.exit_code == 1
    assert "last.pt is of the last whole epoch" in str(e.value)
    folder = settings.runs / "run"
    assert len((folder / "results.csv").read_text().splitlines()) == 2
    for name in ("last.pt", "diverged.pt"):  # the weights that gave the NaN are whole themselves
        model, _, _ = load_checkpoint(folder / name)
        assert all(torch.isfinite(p).all() for p in model.parameters())
    state = load_resume_state(folder / "diverged.pt")
    assert state["step"] == 4
    assert len(state["files"]) == 6


def test_a_nan_in_the_first_epoch_leaves_no_checkpoint(settings: TrainSettings) -> None:
    with pytest.raises(CheckFailed, match="no epoch was finished"):
        train(replace(settings, lr=1e12, max_grad_norm=1e12, warmup_steps=0, epochs=9))
    assert not (settings.runs / "run" / "last.pt").exists()


def test_an_interruption_while_saving_leaves_no_half_file(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(content: object, file: BinaryIO) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        train(settings)
    left = {p.name for p in (settings.runs / "run").iterdir() if "tfevents" not in p.name}
    assert left == {"config.json", "environment.json"}  # no result without its checkpoint


def test_a_run_is_not_written_over(settings: TrainSettings) -> None:
    train(replace(settings, epochs=1))
    before = (settings.runs / "run" / "last.pt").read_bytes()
    with pytest.raises(BadInput, match=r"holds a finished or stopped run.*Choose another `name`"):
        train(settings)
    assert (settings.runs / "run" / "last.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", (100, 128), "multiples of 32"),
        ("size", (0, 32), "multiples of 32"),
        ("epochs", 0, "above zero"),
        ("batch_size", 0, "above zero"),
        ("lr", 0.0, "above zero"),
        ("lr", math.nan, "above zero"),
        ("lr", math.inf, "above zero"),
        ("weight_decay", -1.0, r"the weight decay is -1\.0\. Give a number from 0 on"),
        ("seed", -3, "the seed is -3"),
        ("accumulate", 4, "a batch of 6 images does not divide into 4 parts in 1 process"),
        ("prior", 1.0, "the prior is 1"),
        ("multiscale", (2.0, 1.0), "the range of scales is 2 to 1"),
        ("norm", "frozen", "frozen batch norms without weights do nothing"),
        ("val_images", Path("x"), "validation needs both"),
        ("overrides", {"colour": 1}, "cannot set a field of the model"),
        ("threads", 0, r"threads is 0\. Give a whole number from 1 to 1024"),
        ("device", "nope", r"cannot train on the device 'nope': .* Give cpu, or a device that"),
        ("device", "meta", "cannot train on the device 'meta'"),
        ("device", "cuda:99", "cannot train on the device 'cuda:99'"),
        ("model", "resnet9", "unknown model"),
    ],
)
def test_impossible_settings(
    settings: TrainSettings, field: str, value: object, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        train(replace(settings, **{field: value}))  # type: ignore[arg-type]
    assert not settings.runs.exists()
