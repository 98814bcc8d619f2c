"""The training loss of a RetinaNet (Lin et al. 2017, sections 3.2 and 4).

N  images      A  all anchors of an image      K  classes      P  positive anchors
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from retinart.engine.model.variant import BOX_CLAMP
from retinart.train.data.batches import Objects
from retinart.train.loss.dense_loss import focal_loss_sum
from retinart.train.loss.losses import giou_loss, smooth_l1
from retinart.train.loss.matcher import IGNORED, match
from retinart.train.loss.ohem import hardest
from retinart.train.loss.settings import LossSettings
from retinart.train.model.boxes import decode, encode
from retinart.train.model.retinanet import HeadOutputs, flatten_levels

Normalizer = Callable[[Tensor], Tensor]


class Losses(NamedTuple):
    """Scalars, and the number of this process's positive anchors."""

    cls: Tensor
    box: Tensor
    num_positives: int

    @property
    def total(self) -> Tensor:
        """The sum that is minimised."""
        return self.cls + self.box


class Assignment(NamedTuple):
    """The class and the box that each anchor shall learn."""

    labels: Tensor  # (N, A) int64: class, BACKGROUND or IGNORED
    image: Tensor  # (P,) int64
    anchor: Tensor  # (P,) int64
    boxes: Tensor  # (P, 4) xyxy of the object that each positive anchor learns


def detection_loss(
    outputs: HeadOutputs,
    objects: Sequence[Objects],
    anchors: Tensor,
    *,
    num_classes: int,
    settings: LossSettings,
    normalizer: Normalizer | None = None,
) -> Losses:
    """The class loss over all anchors that are not ignored, the box loss over the positive ones.

    Both are computed in float32 for outputs of any type.

    Args:
        outputs: the model's raw outputs for N images.
        objects: the objects of each image.
        anchors: (A, 4) xyxy in pixels of the network input, in the order of the outputs.
        num_classes: K.
        normalizer: makes of a count, a float32 scalar, the divisor of a sum. It is called with the
            number of positives, and with OHEM then with the number of anchors taken. None divides
            by this process's count, at least 1; `mean_over_processes` is for DDP.

    Returns:
        Sums over the batch, divided.
    """
    normalizer = normalizer or _at_least_one
    targets = assign(objects, anchors, settings)
    num_positives = len(targets.image)
    positives = normalizer(anchors.new_tensor(num_positives, dtype=torch.float32))
    logits = [flatten_levels([level], num_classes) for level in outputs.logits]
    labels, divisor = targets.labels, positives
    if settings.cls_loss.startswith("ohem"):
        labels = hardest(
            torch.cat(logits, dim=1),
            labels,
            anchors,
            count=settings.ohem_batch,
            nms_thresh=settings.ohem_nms,
            one_to_three=settings.cls_loss == "ohem_1to3",
        )
        divisor = normalizer((labels != IGNORED).sum().float())
    alpha, gamma = (settings.alpha, settings.gamma) if settings.cls_loss == "focal" else (None, 0.0)
    parts = torch.split(labels, [level.shape[1] for level in logits], dim=1)
    cls = [
        focal_loss_sum(level, part, alpha=alpha, gamma=gamma)
        for level, part in zip(logits, parts, strict=True)
    ]
    deltas = flatten_levels(outputs.deltas, 4)[targets.image, targets.anchor].float()  # (P, 4)
    with torch.autocast(deltas.device.type, enabled=False):
        box = _box_loss(deltas, targets.boxes, anchors[targets.anchor], settings)
    return Losses(
        cls=torch.stack(cls).sum() / divisor,
        box=box * settings.box_weight / positives,
        num_positives=num_positives,
    )


@torch.no_grad()
def assign(objects: Sequence[Objects], anchors: Tensor, settings: LossSettings) -> Assignment:
    """Match the objects of N images with the anchors (A, 4)."""
    labels, image, anchor, boxes = [], [], [], []
    for i, thing in enumerate(objects):
        matches = match(
            thing.boxes,
            thing.crowd,
            anchors,
            fg_iou_thresh=settings.fg_iou_thresh,
            bg_iou_thresh=settings.bg_iou_thresh,
            allow_low_quality_matches=settings.allow_low_quality_matches,
        )
        hit = (matches >= 0).nonzero()[:, 0]
        learned = matches[hit]
        matches[hit] = thing.labels[learned]
        labels.append(matches)
        image.append(torch.full_like(hit, i))
        anchor.append(hit)
        boxes.append(thing.boxes[learned])
    return Assignment(torch.stack(labels), torch.cat(image), torch.cat(anchor), torch.cat(boxes))


def mean_over_processes(count: Tensor) -> Tensor:
    """A normalizer for DDP: the count of all processes, at least 1, over their number.

    DDP averages gradients over processes. With this divisor they equal the gradients of one process
    with the whole batch. Without a process group it is the local count.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return _at_least_one(count)
    count = count.clone()
    distributed.all_reduce(count)
    return _at_least_one(count) / distributed.get_world_size()


def _box_loss(deltas: Tensor, boxes: Tensor, anchors: Tensor, settings: LossSettings) -> Tensor:
    """The sum over P positive anchors, all (P, 4)."""
    if settings.box_loss == "giou":
        return giou_loss(decode(deltas, anchors, clamp=BOX_CLAMP), boxes).sum()
    beta = settings.beta if settings.box_loss == "smooth_l1" else 0.0
    return smooth_l1(deltas, encode(boxes, anchors), beta=beta).sum()


def _at_least_one(count: Tensor) -> Tensor:
    return count.clamp(min=1)
