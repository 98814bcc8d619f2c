"""Losses against float64 formulas, at their extremes, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from retinart.train.losses import sigmoid_focal_loss, smooth_l1


def _random(shape: tuple[int, ...], scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator) * scale
    targets = (torch.rand(shape, generator=generator) < 0.3).float()
    return logits, targets


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.25, 0.75, None])
def test_focal_loss_is_the_papers_formula(gamma: float, alpha: float | None) -> None:
    logits, targets = _random((1000,), 4)
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    positive = targets.numpy() > 0
    p_t = np.where(positive, p, 1 - p)
    weight = 1.0 if alpha is None else np.where(positive, alpha, 1 - alpha)
    expected = -weight * (1 - p_t) ** gamma * np.log(p_t)
    loss = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=2e-5, atol=1e-7)


def test_gamma_0_is_alpha_balanced_cross_entropy() -> None:
    logits, targets = _random((1000,), 5)
    weight = torch.where(targets > 0, 0.25, 0.75)
    # in float64, since PyTorch's own cancels where the loss is small
    plain = F.binary_cross_entropy_with_logits(logits.double(), targets.double(), reduction="none")
    expected = (weight * plain).float()
    loss = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=0.0)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_focal_loss_is_finite_and_right_at_extreme_logits(gamma: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([-1e4, -100.0, 100.0, 1e4] * 2, dtype=dtype, requires_grad=True)
    targets = torch.tensor([0.0] * 4 + [1.0] * 4, dtype=dtype)
    loss = sigmoid_focal_loss(logits, targets, alpha=None, gamma=gamma)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(gradient).all()
    wrong = [100.0, 1e4]  # -log(p_t) is the logit's size where the prediction is wrong
    expected = torch.tensor([0, 0, *wrong, *wrong[::-1], 0, 0], dtype=dtype)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-2, atol=1e-40)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradient_is_that_of_the_formula(gamma: float) -> None:
    logits, targets = _random((60,), 6)
    x = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: sigmoid_focal_loss(z, targets.double(), alpha=0.25, gamma=gamma), (x,)
    )


def test_smooth_l1_is_a_parabola_then_a_line() -> None:
    x = torch.tensor([-2.0, -0.5, -0.1, 0.0, 0.25, 0.5, 3.0], dtype=torch.float64)
    expected = torch.tensor([1.75, 0.25, 0.01, 0.0, 0.0625, 0.25, 2.75], dtype=torch.float64)
    torch.testing.assert_close(smooth_l1(x, torch.zeros_like(x), beta=0.5), expected)


def test_smooth_l1_with_beta_0_is_l1() -> None:
    x = torch.tensor([-2.0, 0.0, 1e-9])
    torch.testing.assert_close(smooth_l1(x, torch.zeros(3), beta=0.0), x.abs())


@pytest.mark.parametrize("beta", [0.0, 1.0 / 9, 1.0])
def test_smooth_l1_gradient(beta: float) -> None:
    x, _ = _random((40,), 1)
    target = torch.zeros(40, dtype=torch.float64)
    x = x.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: smooth_l1(p, target, beta=beta), (x,))
