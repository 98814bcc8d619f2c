"""The training loss: what is divided by what, hard examples, and settings that cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from retinart.engine.errors import BadInput
from retinart.train.data.batches import Objects
from retinart.train.loss.criterion import (
    Losses,
    assign,
    detection_loss,
    mean_over_processes,
)
from retinart.train.loss.matcher import BACKGROUND, IGNORED, match
from retinart.train.loss.ohem import hardest
from retinart.train.loss.settings import LossSettings
from retinart.train.model.boxes import box_iou
from retinart.train.model.retinanet import HeadOutputs

K = 2
EMPTY = Objects(
    torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
)


def _random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand((count, 2), generator=generator) * 80
    return torch.cat([low, low + torch.rand((count, 2), generator=generator) * 40 + 5], dim=1)


def _objects(count: int, seed: int) -> Objects:
    labels = torch.arange(count) % K
    return Objects(_random_boxes(count, seed), labels, torch.zeros(count, dtype=torch.bool))


ANCHORS = _random_boxes(36, 9)


def _outputs(images: int, seed: int = 0) -> HeadOutputs:
    """Two levels of 3x3 and 3x1 positions with 3 anchors each."""
    generator = torch.Generator().manual_seed(seed)

    def level(channels: int, width: int) -> torch.Tensor:
        return torch.randn((images, channels, 3, width), generator=generator).requires_grad_()

    return HeadOutputs(
        logits=[level(3 * K, 3), level(3 * K, 1)], deltas=[level(12, 3), level(12, 1)]
    )


def _loss(outputs: HeadOutputs, objects: list[Objects], **more: Any) -> Losses:
    settings = more.pop("settings", LossSettings())
    return detection_loss(outputs, objects, ANCHORS, num_classes=K, settings=settings, **more)


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_matching_is_the_rule_anchor_by_anchor(seed: int, low_quality: bool) -> None:
    """Against loops that follow the sentence: 0.5 and 0.4, the band, and low-quality matches."""
    boxes, anchors = _random_boxes(6, seed), _random_boxes(60, seed + 100)
    iou = box_iou(boxes, anchors).tolist()
    expected = []
    for a in range(60):
        column = [row[a] for row in iou]
        best = column.index(max(column))
        if max(column) >= 0.5 or (low_quality and any(row[a] == max(row) > 0 for row in iou)):
            expected.append(best)
        else:
            expected.append(IGNORED if max(column) >= 0.4 else BACKGROUND)
    crowd = torch.zeros(6, dtype=torch.bool)
    got = match(boxes, crowd, anchors, allow_low_quality_matches=low_quality)
    assert got.tolist() == expected
    assert len({*expected} & {IGNORED, BACKGROUND}) == 2


def test_a_batch_is_its_images_one_after_the_other() -> None:
    objects = [_objects(4, 1), EMPTY, _objects(3, 2)]
    targets = assign(objects, ANCHORS, LossSettings())
    assert (targets.labels[1] == BACKGROUND).all()
    assert sorted({*targets.image.tolist()}) == [0, 2]
    for i, anchor, box in zip(targets.image, targets.anchor, targets.boxes, strict=True):
        index = int(match(objects[i].boxes, objects[i].crowd, ANCHORS)[anchor])
        assert torch.equal(box, objects[i].boxes[index])
        assert targets.labels[i, anchor] == objects[i].labels[index]
    assert int((targets.labels >= 0).sum()) == len(targets.image)


def test_the_sum_is_divided_by_the_positives() -> None:
    outputs, objects = _outputs(2), [_objects(4, 1), _objects(3, 2)]
    whole = _loss(outputs, objects)
    assert whole.num_positives > 4
    sums = _loss(outputs, objects, normalizer=torch.ones_like)
    torch.testing.assert_close(whole.cls * whole.num_positives, sums.cls)
    torch.testing.assert_close(whole.box * whole.num_positives, sums.box)
    none = _loss(outputs, [EMPTY, EMPTY])
    assert none.num_positives == 0
    assert none.box == 0
    torch.testing.assert_close(
        none.cls, _loss(outputs, [EMPTY, EMPTY], normalizer=torch.ones_like).cls
    )


@pytest.mark.parametrize("cls_loss", ["focal", "ohem"])
def test_a_normalizer_gets_scalar_counts(cls_loss: str) -> None:
    counts = []

    def normalizer(count: torch.Tensor) -> torch.Tensor:
        assert count.shape == ()
        assert count.dtype == torch.float32
        counts.append(count.item())
        return count * 2

    settings = LossSettings(cls_loss=cls_loss, ohem_batch=5)  # type: ignore[arg-type]
    outputs, objects = _outputs(2), [_objects(4, 1), _objects(3, 2)]
    halved = _loss(outputs, objects, settings=settings, normalizer=normalizer)
    losses = _loss(outputs, objects, settings=settings)
    assert counts == [losses.num_positives] + ([10] if cls_loss == "ohem" else [])
    torch.testing.assert_close(halved.total, losses.total / 2)


IN_A_PROCESS = """
import sys, torch
from torch import distributed
from test_criterion import EMPTY, _loss, _objects, _outputs
from retinart.train.loss.criterion import mean_over_processes

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
for name, objects in (("some", [_objects(9, 1), EMPTY]), ("none", [EMPTY, EMPTY])):
    outputs = _outputs(2)
    losses = _loss(
        type(outputs)(*([t[rank : rank + 1] for t in maps] for maps in outputs)),
        objects[rank : rank + 1],
        normalizer=mean_over_processes,
    )
    losses.total.backward()
    for tensor in (*outputs.logits, *outputs.deltas):
        distributed.all_reduce(tensor.grad)  # DDP averages over processes
    if rank == 0:
        torch.save([t.grad / 2 for t in (*outputs.logits, *outputs.deltas)], f"{store}.{name}")
distributed.destroy_process_group()
"""


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    """One of them without any positive anchor, and then both."""
    store = tmp_path / "store"
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", IN_A_PROCESS, str(rank), str(store)],
            cwd=Path(__file__).parent,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for job in jobs:
        _, err = job.communicate(timeout=120)
        assert job.returncode == 0, err
    for name, objects in (("some", [_objects(9, 1), EMPTY]), ("none", [EMPTY, EMPTY])):
        outputs = _outputs(2)
        _loss(outputs, objects).total.backward()  # type: ignore[no-untyped-call]
        got = torch.load(f"{store}.{name}", weights_only=True)
        for theirs, ours in zip(got, (*outputs.logits, *outputs.deltas), strict=True):
            torch.testing.assert_close(theirs, ours.grad)


def test_without_a_process_group_the_count_is_the_local_one() -> None:
    assert mean_over_processes(torch.tensor(7.0)) == 7
    assert mean_over_processes(torch.tensor(0.0)) == 1


def test_plain_cross_entropy_knows_no_alpha_and_gamma() -> None:
    outputs, objects = _outputs(1), [_objects(3, 1)]
    ce = _loss(outputs, objects, settings=LossSettings(cls_loss="ce", alpha=0.9, gamma=5.0))
    focal = _loss(outputs, objects, settings=LossSettings(alpha=None, gamma=0.0))
    assert ce.cls == focal.cls
    assert ce.cls > _loss(outputs, objects).cls


def test_the_box_losses_differ_and_vanish_where_the_box_is_right() -> None:
    from retinart.train.model.boxes import encode

    outputs, objects = _outputs(1), [_objects(3, 1)]
    losses = {
        name: _loss(outputs, objects, settings=LossSettings(box_loss=name)).box.item()
        for name in ("smooth_l1", "l1", "giou")
    }
    assert losses["l1"] > losses["smooth_l1"]
    assert len({*losses.values()}) == 3
    targets = assign(objects, ANCHORS, LossSettings())
    right = torch.zeros(36, 4)
    right[targets.anchor] = encode(targets.boxes, ANCHORS[targets.anchor])
    first, second = right[:27], right[27:]
    maps = [
        part.view(3, width, 12).permute(2, 0, 1)[None] for part, width in ((first, 3), (second, 1))
    ]
    for name in losses:
        exact = _loss(
            HeadOutputs(outputs.logits, maps),
            objects,
            settings=LossSettings(box_loss=name),  # type: ignore[arg-type]
        )
        assert exact.box.item() == pytest.approx(0, abs=1e-5)


def _greedy(loss: list[float], anchors: torch.Tensor, count: int, thresh: float) -> list[int]:
    """NMS as everyone writes it first."""
    iou, taken = box_iou(anchors, anchors), list[int]()
    for i in sorted(range(len(loss)), key=lambda i: -loss[i]):
        if len(taken) < count and all(iou[i, j] <= thresh for j in taken):
            taken.append(i)
    return taken


def _mined(**more: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses and labels of two images' anchors, and the labels after mining."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn((2, 36, K), generator=generator) * 3
    labels = assign([_objects(9, 1), _objects(9, 2)], ANCHORS, LossSettings()).labels
    labels[:, ::5] = IGNORED
    targets = torch.zeros_like(logits)
    image, anchor = (labels >= 0).nonzero(as_tuple=True)
    targets[image, anchor, labels[image, anchor]] = 1
    return (
        F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=2),
        labels,
        hardest(logits, labels, ANCHORS, **more),
    )


@pytest.mark.parametrize("nms_thresh", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("count", [1, 6, 100])
def test_ohem_takes_the_hardest_that_do_not_overlap(count: int, nms_thresh: float) -> None:
    loss, labels, mined = _mined(count=count, nms_thresh=nms_thresh)
    for i in range(2):
        allowed = (labels[i] != IGNORED).nonzero()[:, 0]
        assert len(allowed) < 30
        order = _greedy(loss[i, allowed].tolist(), ANCHORS[allowed], count, nms_thresh)
        taken = (mined[i] != IGNORED).nonzero()[:, 0]
        assert taken.tolist() == sorted(allowed[order].tolist())
        assert torch.equal(mined[i, taken], labels[i, taken])


def test_one_to_three_takes_three_negatives_for_a_positive() -> None:
    _, labels, _ = _mined(count=8, nms_thresh=0.7, one_to_three=True)
    few = labels[:1].clone()
    few[few >= 0] = BACKGROUND
    few[0, 1] = 0
    both = torch.cat([few, labels[1:]])
    mined = hardest(torch.randn(2, 36, K), both, ANCHORS, count=8, nms_thresh=0.7,
                    one_to_three=True)  # fmt: skip
    for positives, before, after in zip((1, 2), both, mined, strict=True):
        assert int((before >= 0).sum()) >= positives
        assert int((after >= 0).sum()) == positives
        assert int((after == BACKGROUND).sum()) == 3 * positives
    without = torch.full((1, 36), BACKGROUND)
    none = hardest(torch.zeros(1, 36, K), without, ANCHORS, count=8, nms_thresh=0.7,
                   one_to_three=True)  # fmt: skip
    assert (none == IGNORED).all()


@pytest.mark.parametrize("cls_loss", ["ohem", "ohem_1to3"])
def test_only_what_ohem_took_has_a_gradient(cls_loss: str) -> None:
    outputs, objects = _outputs(2), [_objects(4, 1), _objects(3, 2)]
    settings = LossSettings(cls_loss=cls_loss, ohem_batch=4)  # type: ignore[arg-type]
    losses = _loss(outputs, objects, settings=settings)
    losses.total.backward()  # type: ignore[no-untyped-call]
    taken = 0
    for level in outputs.logits:
        assert level.grad is not None
        anchors = level.grad.view(2, 3, K, 3, -1).abs().amax(dim=2)
        taken += int((anchors > 0).sum())
    assert taken == 8
    assert losses.num_positives > 4  # the box loss is over all of them
    far = HeadOutputs([100 * t.sign() for t in outputs.logits], outputs.deltas)
    assert torch.isfinite(_loss(far, objects, settings=settings).total)


@pytest.mark.parametrize("cls_loss", ["focal", "ce", "ohem", "ohem_1to3"])
@pytest.mark.parametrize("box_loss", ["smooth_l1", "l1", "giou"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_have_nearly_the_same_loss(
    cls_loss: str, box_loss: str, dtype: torch.dtype
) -> None:
    settings = LossSettings(cls_loss=cls_loss, box_loss=box_loss)  # type: ignore[arg-type]
    outputs, objects = _outputs(2), [_objects(4, 1), _objects(3, 2)]
    half = HeadOutputs(*([t.detach().to(dtype) for t in maps] for maps in outputs))
    whole = _loss(outputs, objects, settings=settings).total
    with torch.autocast("cpu", dtype):
        losses = _loss(half, objects, settings=settings)
    assert losses.total.dtype == torch.float32
    torch.testing.assert_close(losses.total, whole, rtol=2e-2, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls_loss": "hinge"}, "unknown class loss 'hinge'. Choose one of: focal, ce, ohem"),
        ({"box_loss": "l2"}, "unknown box loss 'l2'. Choose one of: smooth_l1, l1, giou"),
        ({"alpha": 1.5}, "alpha of the focal loss is 1.5. Give a number from 0 to 1"),
        ({"gamma": -1.0}, "gamma of the focal loss is -1.0. Give a number from 0 on"),
        ({"gamma": float("inf")}, "gamma of the focal loss is inf"),
        ({"beta": float("nan")}, "the beta of the box loss is nan"),
        ({"ohem_nms": 2.0}, "IoU of OHEM's NMS is 2.0"),
        ({"ohem_batch": 0}, "OHEM takes 0 anchors"),
        ({"fg_iou_thresh": 0.3}, "below an IoU of 0.4 and positive from 0.3 on"),
        ({"bg_iou_thresh": 0.0}, "below an IoU of 0.0"),
    ],
)
def test_impossible_loss_settings(change: dict[str, Any], message: str) -> None:
    LossSettings(alpha=None)
    with pytest.raises(BadInput, match=message):
        LossSettings(**change)
