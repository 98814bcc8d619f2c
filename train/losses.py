"""Losses of a dense detector, element by element and stable at any logit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sigmoid_focal_loss(
    logits: Tensor, targets: Tensor, *, alpha: float | None = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss -alpha_t (1 - p_t)^gamma log(p_t) (Lin et al. 2017, equation 5).

    Both factors come from log-sigmoids, so that nothing overflows, cancels or gets an infinite
    gradient, at logits of +-100 and beyond. With gamma 0 it is alpha-balanced cross entropy.

    Args:
        logits: (...) any float type.
        targets: (...) 0 or 1, of the logits' shape.
        alpha: weight of the positives, 1 - alpha being the negatives'; None for no weights.
        gamma: focusing parameter, 0 or more.

    Returns:
        (...) the loss of each element.
    """
    z = torch.where(targets > 0, logits, -logits)  # p_t = sigmoid(z)
    loss = -F.logsigmoid(z)
    if gamma != 0:
        loss = loss * torch.exp(gamma * F.logsigmoid(-z))  # (1 - p_t)^gamma
    if alpha is not None:
        loss = loss * torch.where(targets > 0, alpha, 1 - alpha)
    return loss


def smooth_l1(predictions: Tensor, targets: Tensor, *, beta: float = 1.0 / 9) -> Tensor:
    """Huber's loss over beta (Girshick 2015, equation 3, with the corner at beta).

    Args:
        predictions, targets: (...) of one shape.
        beta: where the parabola ends and the line begins; 0 gives L1.

    Returns:
        (...) the loss of each element.
    """
    distance = (predictions - targets).abs()
    if beta == 0:
        return distance
    return torch.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)
