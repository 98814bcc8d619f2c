"""How training resizes images."""

from __future__ import annotations

from retinart.engine.model.resize_rule import ResizeRule
from retinart.engine.model.variant import Variant


def training_rule(variant: Variant, size: tuple[int, int]) -> ResizeRule:
    """The rule that fits images into one canvas, padded with a colour that normalises to zero."""
    return ResizeRule.of_variant(variant, pad_multiple=variant.pad_multiple, canvas=size)
