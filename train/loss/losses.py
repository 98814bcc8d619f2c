"""Losses of a dense detector, element by element and stable at any logit.

These are the formulas. Training sums the focal loss with `focal_loss_sum`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from retinart.train.model.boxes import box_area


def sigmoid_focal_loss(
    logits: Tensor, targets: Tensor, *, alpha: float | None = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss -alpha_t (1 - p_t)^gamma log(p_t) (Lin et al. 2017, equation 5).

    Both factors come from log-sigmoids, so nothing overflows, cancels or gets an infinite gradient
    at logits of +-100 and beyond. With gamma 0 it is alpha-balanced cross entropy, and with alpha
    None besides it is plain cross entropy.

    Args:
        logits: (...) any float type.
        targets: (...) 0 or 1, of the logits' shape.
        alpha: weight of the positives; the negatives have 1 - alpha. None for no weights.
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


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al. 2019, algorithm 1): 0 for equal boxes, up to 2 for far ones.

    Args:
        boxes, targets: (..., 4) xyxy, x1 <= x2 and y1 <= y2; one of a pair may have no area.

    Returns:
        (...) the loss of each pair.
    """
    low = torch.maximum(boxes[..., :2], targets[..., :2])
    high = torch.minimum(boxes[..., 2:], targets[..., 2:])
    inter = (high - low).clamp(min=0).prod(dim=-1)
    union = box_area(boxes) + box_area(targets) - inter
    low = torch.minimum(boxes[..., :2], targets[..., :2])
    high = torch.maximum(boxes[..., 2:], targets[..., 2:])
    hull = (high - low).prod(dim=-1)
    least = torch.finfo(boxes.dtype).tiny
    return 2 - inter / union.clamp(min=least) - union / hull.clamp(min=least)
