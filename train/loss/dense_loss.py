"""Focal loss of all anchors at once: no tensor of targets, and one pass over the logits.

Nearly all targets of a dense detector are 0. So every logit is first computed as background, and
the few others are then replaced. The gradient is computed beside the loss from the same
exponentials, and nothing else is kept until the backward pass.

R  anchors of all images       K  classes
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from retinart.train.loss.matcher import IGNORED

_IN_CACHE = 1 << 17  # logits that fit a CPU's cache together with the values computed from them


def focal_loss_sum(
    logits: Tensor, labels: Tensor, *, alpha: float | None = 0.25, gamma: float = 2.0
) -> Tensor:
    """The sum of `sigmoid_focal_loss` over anchors and classes.

    Stable at any finite logit. Half precision is computed in float32. The sum can be differentiated
    once.

    Args:
        logits: (..., K).
        labels: (...) int64; the class of each anchor, `BACKGROUND` or `IGNORED`.
        alpha, gamma: see `sigmoid_focal_loss`.

    Returns:
        A scalar, float32 or the logits' own type if that is wider.
    """
    total: Tensor = _FocalSum.apply(logits, labels, alpha, gamma)  # type: ignore[no-untyped-call]
    return total


class _FocalSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, alpha: float | None, gamma: float
    ) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            total, slope = _sum_and_slope(logits, labels, alpha, gamma, ctx.needs_input_grad[0])
        ctx.dtype = logits.dtype
        if slope is not None:
            ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (gradient * slope).to(ctx.dtype), None, None, None


def _sum_and_slope(
    logits: Tensor, labels: Tensor, alpha: float | None, gamma: float, with_slope: bool
) -> tuple[Tensor, Tensor | None]:
    """The sum and its derivative by each logit, of the logits' shape."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    rows = logits.detach().reshape(-1, logits.shape[-1])  # (R, K)
    slope = torch.empty(rows.shape, dtype=wide, device=rows.device) if with_slope else None
    step = len(rows) if rows.is_cuda else max(1, _IN_CACHE // rows.shape[1])
    sums = [torch.zeros((), dtype=wide, device=rows.device)]
    for start in range(0, len(rows), max(1, step)):
        part = slice(start, start + step)
        z = rows[part].to(wide)
        label = labels.reshape(-1)[part]
        hit = (label >= 0).nonzero()[:, 0]
        at = (hit, label[hit])
        p, cost, weight = _background(z, gamma)
        weight[label == IGNORED] = 0
        weight[at] = 0
        sums.append(negative * torch.dot(weight.view(-1), cost.view(-1)))
        p_hit, cost_hit, weight_hit = _background(-z[at], gamma)  # the same, seen from 1
        sums.append(positive * torch.dot(weight_hit, cost_hit))
        if slope is not None:
            torch.mul(_slope(p, cost, weight, gamma), negative, out=slope[part])
            slope[part][at] = -positive * _slope(p_hit, cost_hit, weight_hit, gamma)
    return torch.stack(sums).sum(), None if slope is None else slope.view(logits.shape)


def _background(z: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """p, -log(1 - p) and p^gamma where the target is 0; the loss is the last two's product."""
    p = z.sigmoid()
    return p, F.softplus(z), p**gamma


def _slope(p: Tensor, cost: Tensor, weight: Tensor, gamma: float) -> Tensor:
    """d/dz of weight * cost: p^gamma (p + gamma (1 - p) cost)."""
    return torch.addcmul(p, 1 - p, cost, value=gamma).mul_(weight)
