"""The training loss of a RetinaNet (Lin et al. 2017, sections 3.2 and 4).

N  images      A  all anchors of an image      K  classes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from retinart.train.boxes import encode
from retinart.train.data import Objects
from retinart.train.losses import sigmoid_focal_loss, smooth_l1
from retinart.train.matcher import IGNORED, match
from retinart.train.retinanet import HeadOutputs, flatten_levels


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Settings of the loss; see `sigmoid_focal_loss`, `smooth_l1` and `match`.

    Attributes:
        box_weight: factor of the box loss.
    """

    alpha: float = 0.25
    gamma: float = 2.0
    beta: float = 1.0 / 9
    box_weight: float = 1.0
    fg_iou_thresh: float = 0.5
    bg_iou_thresh: float = 0.4
    allow_low_quality_matches: bool = True


class Losses(NamedTuple):
    """Scalars, normalised by the number of positive anchors."""

    cls: Tensor
    box: Tensor
    num_positives: int

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.cls + self.box


def detection_loss(
    outputs: HeadOutputs,
    objects: list[Objects],
    anchors: Tensor,
    *,
    num_classes: int,
    settings: LossSettings,
    normalizer: Callable[[Tensor], Tensor] | None = None,
) -> Losses:
    """Focal loss over all anchors that are not ignored, smooth L1 over the positive ones.

    Args:
        outputs: the model's raw outputs for N images.
        objects: what is on each of them.
        anchors: (A, 4) xyxy in pixels of the network input, in the order of the outputs.
        num_classes: K.
        normalizer: from the number of positive anchors here to what the sums are divided by, where
            this is a part of a larger batch.

    Returns:
        Sums over the batch divided by its number of positive anchors (at least 1).
    """
    logits = flatten_levels(outputs.logits, num_classes).float()  # (N, A, K)
    deltas = flatten_levels(outputs.deltas, 4).float()  # (N, A, 4)
    with torch.no_grad():
        matches = torch.stack([_match(o, anchors, settings) for o in objects])  # (N, A)
        image, anchor = (matches >= 0).nonzero(as_tuple=True)  # (P,) each, P positives
        labels, wanted = _gather(objects, matches)
        targets = torch.zeros_like(logits)
        targets[image, anchor, labels] = 1
        counted = (matches != IGNORED)[..., None]  # (N, A, 1)
    num_positives = len(image)
    cls = sigmoid_focal_loss(logits, targets, alpha=settings.alpha, gamma=settings.gamma)
    box = smooth_l1(deltas[image, anchor], encode(wanted, anchors[anchor]), beta=settings.beta)
    count = torch.tensor(float(num_positives), device=logits.device)
    share = 1.0 / (count if normalizer is None else normalizer(count)).clamp(min=1)
    return Losses(
        cls=(cls * counted).sum() * share,
        box=box.sum() * (share * settings.box_weight),
        num_positives=num_positives,
    )


def count_positives(objects: list[Objects], anchors: Tensor, settings: LossSettings) -> Tensor:
    """How many anchors learn a box, over some images: a scalar, float32."""
    found = [(_match(o, anchors, settings) >= 0).sum() for o in objects]
    return torch.stack(found).sum().float()


def _match(objects: Objects, anchors: Tensor, settings: LossSettings) -> Tensor:
    return match(
        objects.boxes,
        objects.crowd,
        anchors,
        fg_iou_thresh=settings.fg_iou_thresh,
        bg_iou_thresh=settings.bg_iou_thresh,
        allow_low_quality_matches=settings.allow_low_quality_matches,
    )


def _gather(objects: list[Objects], matches: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (P,) and boxes (P, 4) of the positive anchors, image after image."""
    picked = [m[m >= 0] for m in matches]
    labels = torch.cat([o.labels[p] for o, p in zip(objects, picked, strict=True)])
    boxes = torch.cat([o.boxes[p] for o, p in zip(objects, picked, strict=True)])
    return labels, boxes
