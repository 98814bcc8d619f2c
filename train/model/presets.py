"""Variants to train from scratch: the project's own conventions."""

from __future__ import annotations

from retinart.engine.errors import BadInput
from retinart.engine.model.variant import Variant, octave_sizes
from retinart.train.model.backbones import BACKBONES


def preset(name: str, num_classes: int) -> Variant:
    """A variant by the name of its backbone.

    `tiny` is for CPUs and demos. It is narrow, its anchors start at 16 pixels, and its heads have
    GroupNorm, because it is trained from scratch. The others are the paper's: a pyramid of 256
    channels, heads of four convolutions, anchors from 32 pixels on.

    Raises:
        BadInput: there is no such backbone.
    """
    if name not in BACKBONES:
        raise BadInput(f"unknown model {name!r}", fix=f"Choose one of: {', '.join(BACKBONES)}")
    if name == "tiny":
        return Variant(
            source="retinart",
            backbone=name,
            num_classes=num_classes,
            fpn_channels=64,
            head_convs=2,
            head_norm_groups=16,
            p6_from="p5",
            anchor_sizes=octave_sizes((16, 32, 64, 128, 256)),
        )
    return Variant(source="retinart", backbone=name, num_classes=num_classes)
