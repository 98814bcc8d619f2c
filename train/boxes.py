"""Box arithmetic in PyTorch: coding against anchors, IoU. Boxes are xyxy in pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Regression targets of boxes against anchors (Girshick et al. 2014, appendix C).

    Args:
        boxes, anchors: (..., 4) xyxy.

    Returns:
        (..., 4): dx, dy in anchor sizes, dw, dh as logarithms of size ratios.
    """
    size = anchors[..., 2:] - anchors[..., :2]
    center = anchors[..., :2] + size / 2
    box_size = boxes[..., 2:] - boxes[..., :2]
    box_center = boxes[..., :2] + box_size / 2
    return torch.cat([(box_center - center) / size, torch.log(box_size / size)], dim=-1)


def decode(
    deltas: Tensor,
    anchors: Tensor,
    *,
    clamp: float | None,
    clamp_below: bool = False,
    plus_one: bool = False,
) -> Tensor:
    """Boxes from deltas: the inverse of `encode`, with the bounds on dw and dh that variants have.

    Args:
        deltas, anchors: (..., 4).
        clamp, clamp_below, plus_one: `box_clamp`, `box_clamp_below`, `box_plus_one` of `Variant`.

    Returns:
        (..., 4) xyxy, not clipped.
    """
    one = float(plus_one)
    size = anchors[..., 2:] - anchors[..., :2] + one
    center = anchors[..., :2] + size / 2
    log_size = deltas[..., 2:]
    if clamp is not None:
        log_size = log_size.clamp(min=-clamp if clamp_below else None, max=clamp)
    center = center + deltas[..., :2] * size
    half = torch.exp(log_size) * size / 2
    return torch.cat([center - half, center + half - one], dim=-1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every pair: (M, 4) and (N, 4) xyxy to (M, N) in 0 to 1."""
    area_a = (a[:, 2:] - a[:, :2]).prod(dim=1)
    area_b = (b[:, 2:] - b[:, :2]).prod(dim=1)
    corner = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    inter = corner.clamp(min=0).prod(dim=2)  # (M, N)
    union = area_a[:, None] + area_b - inter
    return torch.where(union > 0, inter / union, torch.zeros_like(inter))
