"""ResNet and ResNeXt backbones (He et al. 2016; Xie et al. 2017), returning C3, C4 and C5.

N  images       H, W  input size, multiples of 32       Ci  map of stride 2^i
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from retinart.train.model.backbones import BackboneSpec


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; the channels do not expand."""

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y + shortcut)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; the channels expand fourfold."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        groups: int,
        width_per_group: int,
        stride_in_1x1: bool,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        width = channels * width_per_group // 64 * groups
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, groups=groups, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, 4 * channels, 1, bias=False)
        self.bn3 = norm(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, 4 * channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, 4 * channels, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y + shortcut)
        return out


class ResNet(nn.Module):
    """Stem and four stages; module names are torchvision's.

    Args:
        spec: the backbone's settings.
        stride_in_1x1: see `Variant`.
        bn_eps: epsilon of the batch norms.
        norm_groups: groups of the GroupNorms that replace batch norms; 0 for batch norms.
    """

    def __init__(
        self, spec: BackboneSpec, *, stride_in_1x1: bool, bn_eps: float, norm_groups: int = 0
    ) -> None:
        super().__init__()

        def norm(channels: int) -> nn.Module:
            if norm_groups:
                return nn.GroupNorm(norm_groups, channels)
            return nn.BatchNorm2d(channels, eps=bn_eps)

        def block(in_channels: int, channels: int, stride: int) -> nn.Module:
            if not spec.bottleneck:
                return BasicBlock(in_channels, channels, stride=stride, norm=norm)
            return Bottleneck(
                in_channels,
                channels,
                stride=stride,
                groups=spec.groups,
                width_per_group=spec.width_per_group,
                stride_in_1x1=stride_in_1x1,
                norm=norm,
            )

        self.conv1 = nn.Conv2d(3, spec.width, 7, 2, 3, bias=False)
        self.bn1 = norm(spec.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        expansion = 4 if spec.bottleneck else 1
        channels_in, stages = spec.width, []
        for i, depth in enumerate(spec.depths):
            channels, stride = spec.width * 2**i, 1 if i == 0 else 2
            first = block(channels_in, channels, stride)
            channels_in = expansion * channels
            rest = [block(channels_in, channels, 1) for _ in range(depth - 1)]
            stages.append(nn.Sequential(first, *rest))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = [expansion * spec.width * 2**i for i in (1, 2, 3)]  # of C3, C4, C5

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to C3 (N, c3, H/8, W/8), C4 (N, c4, H/16, W/16), C5 (N, c5, H/32, W/32)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (N, width, H/4, W/4)
        x = self.layer1(x)
        c3 = self.layer2(x)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        return [c3, c4, c5]


def _shortcut(
    in_channels: int, channels: int, stride: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential | None:
    if stride == 1 and in_channels == channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), norm(channels))
