"""Box arithmetic in PyTorch: coding against anchors, IoU. Boxes are xyxy in pixels."""

from __future__ import annotations

import torch
from torch import Tensor

_IN_CACHE = 1 << 16  # pairs of boxes that fit a CPU's cache with the values computed from them


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
    """Boxes from deltas: the inverse of `encode`, with a variant's bounds on dw and dh.

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
    """Intersection over union of every pair: (M, 4) and (N, 4) xyxy to (M, N) in 0 to 1.

    On a CPU it takes `b` in pieces that stay in the cache.
    """
    step = len(b) if b.is_cuda else _IN_CACHE // max(1, len(a))
    parts = torch.split(b, max(1, step))
    return torch.cat([_box_iou(a, part) for part in parts], dim=1)


def _box_iou(a: Tensor, b: Tensor) -> Tensor:
    inter = intersection(a, b)
    union = box_area(a)[:, None] + box_area(b) - inter
    return inter / union.clamp(min=torch.finfo(union.dtype).tiny)


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Common area of every pair: (M, 4) and (N, 4) xyxy to (M, N)."""
    ax1, ay1, ax2, ay2 = a.T.unsqueeze(2)  # (M, 1) each
    bx1, by1, bx2, by2 = b.T.contiguous()  # (N,) each
    w = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    h = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    return w * h


def box_area(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy to (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
