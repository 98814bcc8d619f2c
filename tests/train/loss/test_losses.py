"""Losses against float64 formulas, at their extremes, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from retinart.train.loss.dense_loss import focal_loss_sum
from retinart.train.loss.losses import giou_loss, sigmoid_focal_loss, smooth_l1
from retinart.train.loss.matcher import BACKGROUND, IGNORED
from retinart.train.model.boxes import decode


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


def _labelled(rows: int, classes: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (rows, classes) and labels of all three kinds."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((rows, classes), generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(0, classes, (rows,), generator=generator)
    kind = torch.rand(rows, generator=generator)
    labels[kind < 0.7], labels[kind < 0.2] = BACKGROUND, IGNORED
    return logits, labels


def _summed(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float | None, gamma: float
) -> torch.Tensor:
    """What `focal_loss_sum` shall give, by the formula and a tensor of targets."""
    targets = torch.zeros_like(logits)
    hit = labels >= 0
    targets[hit, labels[hit]] = 1
    loss = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    return (loss * (labels != IGNORED)[..., None]).sum()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.25, None])
def test_the_sum_over_anchors_is_that_of_the_elements(gamma: float, alpha: float | None) -> None:
    logits, labels = _labelled(500, 300, 4)  # more than one piece
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours, theirs = (
        focal_loss_sum(x, labels, alpha=alpha, gamma=gamma),
        _summed(y, labels, alpha, gamma),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    (3 * ours).backward()  # type: ignore[no-untyped-call]
    (3 * theirs).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [0.25, None])
def test_the_gradient_of_the_sum_is_that_of_the_formula(gamma: float, alpha: float | None) -> None:
    logits, labels = _labelled(20, 3, 6)
    assert {BACKGROUND, IGNORED} < set(labels.tolist())
    assert torch.autograd.gradcheck(
        lambda z: focal_loss_sum(z.view(4, 5, 3), labels.view(4, 5), alpha=alpha, gamma=gamma),
        (logits.requires_grad_(),),
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_the_sum_is_finite_and_right_at_extreme_logits(
    gamma: float, dtype: torch.dtype, autocast: torch.dtype | None
) -> None:
    logits = torch.tensor([[-1e4, -100.0], [100.0, 1e4], [-100.0, 100.0]], dtype=dtype)
    logits.requires_grad_()
    labels = torch.tensor([BACKGROUND, 0, 0])
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        loss = focal_loss_sum(logits, labels, alpha=None, gamma=gamma)
        formula = _summed(logits.detach().float(), labels, None, gamma)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), torch.tensor(1e4 + 200), rtol=2e-3, atol=0)
    torch.testing.assert_close(formula, torch.tensor(1e4 + 200), rtol=2e-3, atol=0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.dtype == dtype
    assert gradient.tolist() == [[0, 0], [0, 1], [-1, 1]]


def test_plain_cross_entropy_at_extreme_logits_and_ordinary_ones() -> None:
    logits, targets = _random((1000,), 5)
    expected = F.binary_cross_entropy_with_logits(
        logits.double(), targets.double(), reduction="none"
    )
    loss = sigmoid_focal_loss(logits, targets, alpha=None, gamma=0.0)
    torch.testing.assert_close(loss, expected.float())
    far = torch.tensor([-100.0, 100.0, -100.0, 100.0])
    targets = torch.tensor([0.0, 0.0, 1.0, 1.0])
    loss = sigmoid_focal_loss(far, targets, alpha=None, gamma=0.0)
    torch.testing.assert_close(loss, torch.tensor([0.0, 100.0, 100.0, 0.0]))


@pytest.mark.parametrize("empty", [(0, 3), (2, 0, 3)])
def test_the_sum_over_no_anchors_is_zero(empty: tuple[int, ...]) -> None:
    logits = torch.zeros(empty, requires_grad=True)
    loss = focal_loss_sum(logits, torch.zeros(empty[:-1], dtype=torch.int64))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None and logits.grad.shape == empty


def _saved_bytes(loss: Callable[[torch.Tensor], torch.Tensor]) -> int:
    """Bytes that autograd keeps from the forward to the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    logits = torch.zeros(2000, 80, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(logits)
    return sum(kept.values())


def test_the_sum_keeps_no_more_than_cross_entropy_does() -> None:
    labels = torch.full((2000,), BACKGROUND)
    targets = torch.zeros(2000, 80)
    ours = _saved_bytes(lambda x: focal_loss_sum(x, labels))
    theirs = _saved_bytes(lambda x: F.binary_cross_entropy_with_logits(x, targets, reduction="sum"))
    formula = _saved_bytes(lambda x: sigmoid_focal_loss(x, targets).sum())
    one = 2000 * 80 * 4  # bytes of the logits
    assert ours == one
    assert theirs == 2 * one
    assert formula > 4 * one  # so training does not use it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_box_losses_are_finite_at_extreme_deltas(dtype: torch.dtype) -> None:
    anchors = torch.tensor([[0.0, 0.0, 32.0, 32.0]]).expand(3, 4)
    boxes = torch.tensor([[4.0, 4.0, 20.0, 30.0]]).expand(3, 4)
    deltas = torch.tensor([[100.0] * 4, [-100.0] * 4, [0.0] * 4], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        wide = deltas.float()
        loss = (
            smooth_l1(wide, torch.zeros(3, 4)).sum()
            + smooth_l1(wide, torch.zeros(3, 4), beta=0.0).sum()
            + giou_loss(decode(wide, anchors, clamp=4.135), boxes).sum()
        )
    (gradient,) = torch.autograd.grad(loss, deltas)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_giou_of_equal_disjoint_nested_and_empty_boxes() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    boxes = torch.tensor([box, box, box, [5.0, 5.0, 5.0, 5.0], [3.0, 3.0, 3.0, 3.0]])
    targets = torch.tensor([box, [20.0, 0.0, 30.0, 10.0], [0.0, 0.0, 5.0, 10.0], box, [3.0] * 4])
    loss = giou_loss(boxes, targets)
    # the hull of the second pair is 300; 100 of it belong to neither
    torch.testing.assert_close(loss, torch.tensor([0.0, 1 + 1 / 3, 0.5, 1.0, 2.0]))


def test_giou_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand((20, 2), generator=generator, dtype=torch.float64) * 20
    size = torch.rand((2, 20, 2), generator=generator, dtype=torch.float64) * 10 + 1
    boxes = torch.cat([low, low + size[0]], dim=1).requires_grad_()
    targets = torch.cat([low + 3, low + 3 + size[1]], dim=1)
    assert torch.autograd.gradcheck(lambda b: giou_loss(b, targets), (boxes,))
