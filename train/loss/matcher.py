"""Which anchor learns which box (Lin et al. 2017, section 4).

M  boxes of an image       N  anchors
"""

from __future__ import annotations

import torch
from torch import Tensor

from retinart.train.model.boxes import box_area, box_iou, intersection

BACKGROUND = -1
IGNORED = -2


def match(
    boxes: Tensor,
    crowd: Tensor,
    anchors: Tensor,
    *,
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
    allow_low_quality_matches: bool = True,
) -> Tensor:
    """Assign each anchor of an image a box, the background, or nothing.

    Args:
        boxes: (M, 4) xyxy.
        crowd: (M,) bool; a crowd's box is never assigned. Anchors that lie in one with at least
            `fg_iou_thresh` of their area are ignored rather than background.
        anchors: (N, 4) xyxy.
        fg_iou_thresh: from this IoU on an anchor learns its best box.
        bg_iou_thresh: below this IoU it is background; the band between is ignored.
        allow_low_quality_matches: the anchors nearest to a box learn their best box at any IoU, so
            a box that no anchor fits is learned too.

    Returns:
        (N,) int64: an index into `boxes`, `BACKGROUND` or `IGNORED`.
    """
    matches = torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    if not len(boxes):
        return matches
    iou = box_iou(boxes, anchors)  # (M, N)
    crowded = bool(crowd.any())
    if crowded:
        iou[crowd] = 0
    best_iou, best = iou.max(dim=0)  # (N,)
    matches[best_iou >= bg_iou_thresh] = IGNORED
    matches = torch.where(best_iou >= fg_iou_thresh, best, matches)
    if allow_low_quality_matches:
        peak = iou.amax(dim=1, keepdim=True).clamp(min=torch.finfo(iou.dtype).tiny)
        nearest = (iou == peak).nonzero()[:, 1]  # ties are all taken
        matches[nearest] = best[nearest]
    if crowded:
        inside = _share_inside(anchors, boxes[crowd]).amax(dim=0) >= fg_iou_thresh
        matches[inside & (matches == BACKGROUND)] = IGNORED
    return matches


def _share_inside(anchors: Tensor, regions: Tensor) -> Tensor:
    """Share of each anchor's area that lies in each region: (R, N), COCO's IoU with crowds."""
    return intersection(regions, anchors) / box_area(anchors)
