"""The backbones by name. They need no PyTorch, so that `retinart data check` runs without it."""

from __future__ import annotations

from typing import NamedTuple


class BackboneSpec(NamedTuple):
    """Settings of a backbone; `width` is the first stage's channel count."""

    bottleneck: bool
    depths: tuple[int, int, int, int]
    width: int = 64
    groups: int = 1
    width_per_group: int = 64


BACKBONES: dict[str, BackboneSpec] = {
    "tiny": BackboneSpec(False, (1, 1, 1, 1), width=32),
    "resnet18": BackboneSpec(False, (2, 2, 2, 2)),
    "resnet34": BackboneSpec(False, (3, 4, 6, 3)),
    "resnet50": BackboneSpec(True, (3, 4, 6, 3)),
    "resnet101": BackboneSpec(True, (3, 4, 23, 3)),
    "resnet152": BackboneSpec(True, (3, 8, 36, 3)),
    "resnext50_32x4d": BackboneSpec(True, (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x4d": BackboneSpec(True, (3, 4, 23, 3), groups=32, width_per_group=4),
    "resnext101_64x4d": BackboneSpec(True, (3, 4, 23, 3), groups=64, width_per_group=4),
    "resnext101_32x8d": BackboneSpec(True, (3, 4, 23, 3), groups=32, width_per_group=8),
}
