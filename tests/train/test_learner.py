"""One step of a training: what is frozen, what is clipped, and when it has diverged."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import retinart.train.learner as learner
import retinart.train.loss.criterion as criterion
import retinart.train.model.winograd as winograd
from retinart.train.data.batches import Batch, Objects
from retinart.train.initial import freeze_batch_norms, start
from retinart.train.learner import Diverged, Learner, make_optimizer
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from retinart.train.ranks import Ranks
from retinart.train.settings import TrainSettings

SETTINGS = TrainSettings(annotations=Path("none"), images=Path("none"), name="none", ema_decay=0.0)


def _learner(settings: TrainSettings = SETTINGS) -> Learner:
    torch.manual_seed(0)
    return Learner(start(settings, ["x"]), settings, Ranks(device=torch.device("cpu")))


def scale_losses(learning: Learner, scale: float) -> None:
    """Set the factor of the loss in fp16, which falls when a gradient overflows."""
    state = learning.state()
    state["scaler"] = {**state["scaler"], "scale": scale}
    learning.restore({**state, "average": learning.average.model.state_dict()})


def _batch() -> Batch:
    """Two images of noise, 64x64, each with one object."""
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (2, 64, 64, 3), np.uint8))
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    objects = Objects(box, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool))
    return Batch(frames, [objects] * 2, [Path("a"), Path("b")])


def test_synchronised_batch_norms_are_frozen_too() -> None:
    """They do not derive from BatchNorm2d, and trainings on several GPUs use them."""
    model = build_retinanet(preset("tiny", 1))
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model.train()
    freeze_batch_norms(model)
    norms = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms
    assert not any(m.training or m.weight.requires_grad for m in norms)
    assert model.fpn.training


def test_the_optimizer_is_the_papers() -> None:
    model = build_retinanet(preset("tiny", 1))
    sgd = make_optimizer(model, SETTINGS)
    assert isinstance(sgd, torch.optim.SGD)
    (group,) = sgd.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.9, 1e-4)
    assert len(group["params"]) == len(list(model.parameters()))
    adamw = make_optimizer(model, replace(SETTINGS, optimizer="adamw"))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["weight_decay"] == 0.05
    other = make_optimizer(model, replace(SETTINGS, momentum=0.5, weight_decay=0.0))
    assert (other.param_groups[0]["momentum"], other.param_groups[0]["weight_decay"]) == (0.5, 0)


def test_gradients_are_shortened_to_the_norm() -> None:
    """Plain SGD without decay moves the weights by the gradient, so at rate 1 by its length."""
    plain = replace(SETTINGS, momentum=0.0, weight_decay=0.0)

    def moved(limit: float) -> float:
        learning = _learner(replace(plain, max_grad_norm=limit))
        before = [p.detach().clone() for p in learning.net.parameters()]
        learning.step(_batch(), 1.0)
        pairs = zip(learning.net.parameters(), before, strict=True)
        return math.sqrt(sum(float((p.detach() - b).square().sum()) for p, b in pairs))

    whole = moved(1e9)
    assert whole > 0.1
    assert moved(0.1) == pytest.approx(0.1, rel=1e-3)
    assert moved(0.0) == pytest.approx(whole, rel=1e-3)  # no limit


def test_a_step_in_fp16_changes_the_weights() -> None:
    learning = _learner(replace(SETTINGS, precision="fp16"))
    before = learning.net.fpn.p6.weight.detach().clone()
    scale_losses(learning, 64.0)
    learning.step(_batch(), 0.01)
    assert not torch.equal(before, learning.net.fpn.p6.weight)
    assert torch.isfinite(learning.net.fpn.p6.weight).all()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_lasting_nan_in_the_gradient_is_no_success(
    precision: Literal["fp32", "fp16"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp16 the step is skipped and the scale halved, but not for ever."""
    original = criterion.detection_loss

    def poisoned(*args: object, **kwargs: object) -> criterion.Losses:
        losses = original(*args, **kwargs)  # type: ignore[arg-type]
        return losses._replace(box=losses.box + (0 * losses.box).sqrt())  # 0, its slope is NaN

    learning = _learner(replace(SETTINGS, precision=precision))
    before = learning.net.fpn.p6.weight.detach().clone()
    monkeypatch.setattr(learner, "detection_loss", poisoned)
    if precision == "fp16":
        scale_losses(learning, 2.0)
        learning.step(_batch(), 0.01)
        learning.step(_batch(), 0.01)
    with pytest.raises(Diverged, match="gradient"):
        learning.step(_batch(), 0.01)
    assert torch.equal(before, learning.net.fpn.p6.weight)


def test_winograd_changes_a_step_by_rounding_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 3x3 convolution without stride takes it here, whether it pays or not."""

    def flat(net: nn.Module) -> Tensor:
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    def stepped() -> tuple[list[float], Tensor]:
        learning = _learner(replace(SETTINGS, momentum=0.0, weight_decay=0.0, max_grad_norm=0.0))
        before = flat(learning.net)
        losses = learning.step(_batch(), 1.0)
        return losses, before - flat(learning.net)

    losses, gradient = stepped()
    called = Mock(side_effect=winograd.winograd)
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    monkeypatch.setattr(winograd, "winograd", called)
    fast_losses, fast_gradient = stepped()
    assert called.call_count > 20
    assert fast_losses == pytest.approx(losses, rel=1e-5)
    assert (fast_gradient - gradient).norm() < 1e-5 * gradient.norm()


def test_half_precision_has_no_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    monkeypatch.setattr(winograd, "winograd", lambda *args: pytest.fail("it was called"))
    _learner(replace(SETTINGS, precision="fp16")).step(_batch(), 0.001)
