"""Online hard example mining (Shrivastava et al. 2016), the baseline of the focal loss's paper.

N  images      A  anchors of an image      K  classes
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from retinart.train.loss.matcher import IGNORED
from retinart.train.model.boxes import box_area


@torch.no_grad()
def hardest(
    logits: Tensor,
    labels: Tensor,
    anchors: Tensor,
    *,
    count: int,
    nms_thresh: float,
    one_to_three: bool = False,
) -> Tensor:
    """Labels with all anchors ignored except the hardest of each image.

    An anchor's hardness is its cross entropy summed over the classes. Anchors are taken in falling
    order of hardness, and an anchor that overlaps a taken one by more than `nms_thresh` is skipped.

    Args:
        logits: (N, A, K).
        labels: (N, A) int64: class, `BACKGROUND` or `IGNORED`.
        anchors: (A, 4) xyxy.
        count: most anchors to take of an image.
        nms_thresh: IoU.
        one_to_three: take positives up to a quarter of `count`, and three times as many negatives
            as that gave (Liu et al. 2016). NMS then runs in each group on its own, so background
            cannot suppress an object.

    Returns:
        (N, A) int64.
    """
    loss = _cross_entropy(logits, labels)
    loss[labels == IGNORED] = -math.inf
    limit = labels.new_full((len(labels),), count)
    if one_to_three:
        positive = labels >= 0
        taken = _take(loss.masked_fill(~positive, -math.inf), anchors, limit // 4, nms_thresh)
        negatives = loss.masked_fill(positive, -math.inf)
        taken |= _take(negatives, anchors, 3 * taken.sum(dim=1), nms_thresh)
    else:
        taken = _take(loss, anchors, limit, nms_thresh)
    return labels.masked_fill(~taken, IGNORED)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, A): the sum over all classes of an anchor."""
    loss = F.softplus(logits.float()).sum(dim=-1)
    image, anchor = (labels >= 0).nonzero(as_tuple=True)
    loss[image, anchor] -= logits[image, anchor, labels[image, anchor]].float()
    return loss


def _take(scores: Tensor, anchors: Tensor, limit: Tensor, nms_thresh: float) -> Tensor:
    """Greedy NMS in all images at once, until each has its `limit` (N,): (N, A) bool."""
    taken = torch.zeros_like(scores, dtype=torch.bool)
    if not scores.numel():
        return taken
    scores = scores.clone()
    every = torch.arange(len(scores), device=scores.device)
    x1, y1, x2, y2 = anchors.T.contiguous()  # (A,) each
    area = box_area(anchors)
    share = nms_thresh / (1 + nms_thresh)  # IoU > t is intersection > share * (area + area)
    for i in range(int(limit.max())):
        best, index = scores.max(dim=1)  # (N,)
        more = (best > -math.inf) & (i < limit)
        if not more.any():
            break
        taken[every, index] |= more
        left, top, right, bottom = anchors[index].T.unsqueeze(2)  # (N, 1) each
        w = (torch.minimum(right, x2) - torch.maximum(left, x1)).clamp_(min=0)
        h = (torch.minimum(bottom, y2) - torch.maximum(top, y1)).clamp_(min=0)
        overlap = w.mul_(h) > share * (area[index][:, None] + area)
        scores.masked_fill_(overlap, -math.inf)
        scores[every, index] = -math.inf
    return taken
