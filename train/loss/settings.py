"""Settings of the training loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from retinart.engine.errors import BadInput

ClassLoss = Literal["focal", "ce", "ohem", "ohem_1to3"]
BoxLoss = Literal["smooth_l1", "l1", "giou"]


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Settings of the loss.

    Attributes:
        cls_loss: "focal" over all anchors; "ce", cross entropy over all anchors without weights;
            "ohem", cross entropy over each image's hardest anchors; or "ohem_1to3", the same with
            three negatives for each positive.
        alpha: weight of positives in "focal"; None for no weights.
        gamma: focusing parameter of "focal"; 0 makes it alpha-balanced cross entropy.
        ohem_batch: anchors that OHEM takes of each image.
        ohem_nms: IoU above which a hard anchor suppresses others.
        box_loss: "smooth_l1" or "l1" of the coded boxes, or "giou" of the boxes.
        beta: of `smooth_l1`.
        box_weight: factor of the box loss.
        fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches: see `match`.

    Raises:
        BadInput: a number is out of its range, or a name is unknown.
    """

    cls_loss: ClassLoss = "focal"
    alpha: float | None = 0.25
    gamma: float = 2.0
    ohem_batch: int = 128
    ohem_nms: float = 0.5
    box_loss: BoxLoss = "smooth_l1"
    beta: float = 1.0 / 9
    box_weight: float = 1.0
    fg_iou_thresh: float = 0.5
    bg_iou_thresh: float = 0.4
    allow_low_quality_matches: bool = True

    def __post_init__(self) -> None:
        for name, chosen, choices in (
            ("class loss", self.cls_loss, get_args(ClassLoss)),
            ("box loss", self.box_loss, get_args(BoxLoss)),
        ):
            if chosen not in choices:
                raise BadInput(
                    f"unknown {name} {chosen!r}", fix=f"Choose one of: {', '.join(choices)}"
                )
        for name, value, high in (
            ("alpha of the focal loss", self.alpha or 0.0, 1.0),
            ("gamma of the focal loss", self.gamma, math.inf),
            ("beta of the box loss", self.beta, math.inf),
            ("factor of the box loss", self.box_weight, math.inf),
            ("IoU of OHEM's NMS", self.ohem_nms, 1.0),
        ):
            if not (0 <= value <= high and math.isfinite(value)):
                raise BadInput(
                    f"the {name} is {value}",
                    fix=f"Give a number from 0 {'on' if math.isinf(high) else 'to 1'}",
                )
        if self.ohem_batch < 1:
            raise BadInput(
                f"OHEM takes {self.ohem_batch} anchors of an image", fix="Give a number from 1 on"
            )
        low, high = self.bg_iou_thresh, self.fg_iou_thresh
        if not 0 < low <= high <= 1:
            raise BadInput(
                f"anchors are background below an IoU of {low} and positive from {high} on",
                fix="Give two numbers above 0, up to 1, the first not above the second",
            )
