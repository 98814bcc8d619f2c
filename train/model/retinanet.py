"""RetinaNet (Lin et al. 2017, "Focal Loss for Dense Object Detection"), top to bottom.

N  images      H, W  input size, multiples of 32      Pi  pyramid map of stride 2^i
A  anchors at a position      K  classes      Hi, Wi  H / 2^i, W / 2^i rounded up
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinart.engine.errors import BadInput
from retinart.engine.model.variant import Variant
from retinart.train.model.anchors import Array, anchors
from retinart.train.model.backbones import BACKBONES
from retinart.train.model.resnet import ResNet


class HeadOutputs(NamedTuple):
    """Raw outputs, one tensor a level from P3 to P7, before any sigmoid or decoding."""

    logits: list[Tensor]  # (N, A * K, Hi, Wi), channel = anchor * K + class
    deltas: list[Tensor]  # (N, A * 4, Hi, Wi), channel = anchor * 4 + (dx, dy, dw, dh)


class FPN(nn.Module):
    """Feature pyramid P3 to P7 (Lin et al. 2017b), with RetinaNet's P6 and P7.

    Args:
        in_channels: channels of C3, C4, C5.
        channels: channels of every pyramid map.
        p6_from_p5: P6 is a strided convolution of P5 rather than of C5.
        p7_relu: a ReLU stands between P6 and P7.
    """

    def __init__(
        self, in_channels: list[int], channels: int, *, p6_from_p5: bool, p7_relu: bool
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, 1) for _ in in_channels)
        self.p6 = nn.Conv2d(channels if p6_from_p5 else in_channels[-1], channels, 3, 2, 1)
        self.p7 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.p6_from_p5, self.p7_relu = p6_from_p5, p7_relu
        for conv in [*self.lateral, *self.output, self.p6, self.p7]:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
        """[P3 ... P7], each (N, channels, Hi, Wi)."""
        m5 = self.lateral[2](c5)
        m4 = self.lateral[1](c4) + F.interpolate(m5, scale_factor=2.0, mode="nearest")
        m3 = self.lateral[0](c3) + F.interpolate(m4, scale_factor=2.0, mode="nearest")
        p3, p4, p5 = (conv(m) for conv, m in zip(self.output, (m3, m4, m5), strict=True))
        p6 = self.p6(p5 if self.p6_from_p5 else c5)
        p7 = self.p7(F.relu(p6) if self.p7_relu else p6)
        return [p3, p4, p5, p6, p7]


class Head(nn.Module):
    """A subnet that all levels share: `convs` 3x3 convolutions with ReLU, then the output.

    Args:
        channels: of the pyramid maps.
        convs: how many convolutions come before the output one.
        norm_groups: groups of the GroupNorm after each convolution; 0 for a bias instead.
        out_channels: A * K or A * 4.
        prior: initial probability of every output (for the class head), or None.
    """

    def __init__(
        self, channels: int, *, convs: int, norm_groups: int, out_channels: int, prior: float | None
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=not norm_groups) for _ in range(convs)
        )
        self.norms = nn.ModuleList(
            nn.GroupNorm(norm_groups, channels) if norm_groups else nn.Identity()
            for _ in range(convs)
        )
        self.output = nn.Conv2d(channels, out_channels, 3, 1, 1)
        for conv in [*self.convs, self.output]:
            assert isinstance(conv, nn.Conv2d)
            if not conv.weight.is_meta:  # for its sake PyTorch would load its compiler, for seconds
                nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        if prior is not None:  # so that training starts from rare foreground (section 4.1)
            assert self.output.bias is not None
            nn.init.constant_(self.output.bias, -math.log((1 - prior) / prior))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, Hi, Wi) to (N, out_channels, Hi, Wi)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        out: Tensor = self.output(x)
        return out


class RetinaNet(nn.Module):
    """Backbone, pyramid and the two heads.

    Args:
        backbone: gives C3, C4, C5 and names their `out_channels`.
        fpn: turns them into P3 to P7.
        cls_head, box_head: subnets that every level shares.
    """

    def __init__(self, *, backbone: nn.Module, fpn: FPN, cls_head: Head, box_head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.cls_head = cls_head
        self.box_head = box_head

    def forward(self, x: Tensor) -> HeadOutputs:
        """Raw outputs for normalised images.

        Args:
            x: (N, 3, H, W) float, normalised, channels in the variant's order.
        """
        pyramid = self.fpn(*self.backbone(x))
        return HeadOutputs(
            logits=[self.cls_head(p) for p in pyramid], deltas=[self.box_head(p) for p in pyramid]
        )


def build_retinanet(variant: Variant, *, prior: float = 0.01) -> RetinaNet:
    """A RetinaNet with fresh weights for a variant's settings.

    Raises:
        BadInput: the variant names a backbone that does not exist.
    """
    if variant.backbone not in BACKBONES:
        raise BadInput(
            f"unknown backbone {variant.backbone!r}", fix=f"Choose one of: {', '.join(BACKBONES)}"
        )
    backbone = ResNet(
        BACKBONES[variant.backbone],
        stride_in_1x1=variant.stride_in_1x1,
        bn_eps=variant.bn_eps,
        norm_groups=variant.backbone_norm_groups,
    )
    channels, a = variant.fpn_channels, variant.num_anchors
    head = {"convs": variant.head_convs, "norm_groups": variant.head_norm_groups}
    return RetinaNet(
        backbone=backbone,
        fpn=FPN(
            backbone.out_channels,
            channels,
            p6_from_p5=variant.p6_from == "p5",
            p7_relu=variant.p7_relu,
        ),
        cls_head=Head(channels, **head, out_channels=a * variant.num_classes, prior=prior),
        box_head=Head(channels, **head, out_channels=a * 4, prior=None),
    )


def variant_anchors(variant: Variant, image_size: tuple[int, int]) -> list[Array]:
    """`anchors` with a variant's settings: one (Hi * Wi * A, 4) xyxy array a level."""
    return anchors(
        image_size,
        sizes=variant.anchor_sizes,
        ratios=variant.anchor_ratios,
        order=variant.anchor_order,
        rounding=variant.anchor_rounding,
        center=variant.anchor_center,
        strides=variant.anchor_strides,
    )


def flatten_levels(maps: list[Tensor], last: int) -> Tensor:
    """Level maps (N, A * last, Hi, Wi) to (N, sum of Hi * Wi * A, last), ordered (y, x, a)."""
    flat = []
    for m in maps:
        n, _, h, w = m.shape
        flat.append(m.view(n, -1, last, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, last))
    return torch.cat(flat, dim=1)
