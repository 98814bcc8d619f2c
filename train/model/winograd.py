"""Winograd's algorithm for the 3x3 convolutions of a training step on a CPU.

A tile of 4x4 outputs is computed from 6x6 inputs with 36 multiplications a pair of channels instead
of 144: F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
With X, Y and W for the values of tiles and weights after their transforms, a forward pass is
Y = X W. Its gradients have the same form: that of X is dY W^T, and that of W is X^T dY. So both
passes need a quarter of the multiplications. The points of the transforms are in
`engine.runtime.winograd_graph`; with them the error is about twice the direct sum's.

N  images       C, O  channels in and out       T  tiles of all images, N * high * wide
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from retinart.engine.runtime.winograd_graph import transforms

_OUT, _KERNEL = 4, 3
_IN = _OUT + _KERNEL - 1
_PLAIN = ((1, 1), (1, 1), (1, 1), 1)  # stride, padding, dilation, groups
_IN_CACHE = 1 << 22  # values of the tiles that are computed at once


class FastConvolutions(TorchFunctionMode):
    """While it is entered, `Conv2d` takes Winograd's algorithm where that is faster.

    It transforms a weight that several maps share once, so each forward pass needs one of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}  # by id; holds the weight too

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See `TorchFunctionMode`."""
        if func is F.conv2d and not kwargs and _fits(args):
            x, weight, bias = args[:3]
            if id(weight) not in self._weights:
                self._weights[id(weight)] = weight, transform_weight(weight)
            return winograd(x, self._weights[id(weight)][1], bias)
        return func(*args, **(kwargs or {}))


def pays(images: int, channels: int, outputs: int, height: int, width: int) -> bool:
    """Whether the algorithm makes both passes of a convolution faster.

    Costs are counted in multiplications that take as long, as measured in both passes on a CPU with
    AVX512: 115 for a value of an input's tiles, 45 for one of an output's, 80 for a weight.
    """
    tiles = images * math.ceil(height / _OUT) * math.ceil(width / _OUT)
    product = channels * outputs * (tiles + 80)
    moving = tiles * (115 * channels + 45 * outputs)
    direct = _KERNEL**2 * channels * outputs * images * height * width
    return _IN**2 * (product + moving) < 0.9 * direct


def transform_weight(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) to (36, C, O). Autograd differentiates it."""
    o, c, _, _ = weight.shape
    flat = weight.permute(2, 3, 1, 0).reshape(_KERNEL**2, c * o)
    return (_matrices(weight.dtype)[1] @ flat).view(_IN**2, c, o)


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution, padded by 1. It can be differentiated once.

    Args:
        x: (N, C, H, W), fastest in channels-last memory.
        weight: (36, C, O) of `transform_weight`.
        bias: (O,) or None.

    Returns:
        (N, O, H, W) in channels-last memory.
    """
    result: Tensor = _Winograd.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


class _Winograd(torch.autograd.Function):
    """It keeps the input, and transforms it again in the backward pass: tiles need more memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        h, w, o = *x.shape[2:], weight.shape[2]
        high, wide = _tiles(h, w)
        y = x.new_empty(len(x), _OUT * high, _OUT * wide, o)
        for part in _parts(x, o):
            values = _matrices(x.dtype)[0] @ torch.bmm(_frames(x[part]), weight).view(_IN**2, -1)
            _tiled(y[part]).copy_(values.view(_OUT, _OUT, -1, high, wide, o))
        if bias is not None:
            y += bias
        return y[:, :h, :w].permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (c, h, w), o = x.shape[1:], weight.shape[2]
        high, wide = _tiles(h, w)
        for_x, for_weight, for_bias = ctx.needs_input_grad
        of_x = torch.empty_like(x) if for_x else None
        of_weight = torch.zeros_like(weight) if for_weight else None
        rest = (0, 0, 0, _OUT * wide - w, 0, _OUT * high - h)
        g = F.pad(gradient.permute(0, 2, 3, 1), rest)
        of_output, _, of_input = _matrices(gradient.dtype)
        for part in _parts(x, o):
            values = of_output.T @ _tiled(g[part]).reshape(_OUT**2, -1)
            values = values.view(_IN**2, -1, o)
            if of_weight is not None:
                of_weight.baddbmm_(_frames(x[part]).transpose(1, 2), values)
            if of_x is not None:
                back = of_input.T @ torch.bmm(values, weight.transpose(1, 2)).view(_IN**2, -1)
                whole = _overlapped(back.view(_IN, _IN, -1, high, wide, c))
                of_x[part] = whole[:, 1 : 1 + h, 1 : 1 + w].permute(0, 3, 1, 2)
        return of_x, of_weight, gradient.sum((0, 2, 3)) if for_bias else None


def _fits(args: Sequence[Any]) -> bool:
    """Whether `Conv2d` called for a convolution that becomes faster."""
    if args[3:] != _PLAIN:
        return False
    x, weight = args[:2]
    return (
        weight.shape[2:] == (_KERNEL, _KERNEL)
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and pays(len(x), weight.shape[1], weight.shape[0], x.shape[2], x.shape[3])
    )


def _tiles(height: int, width: int) -> tuple[int, int]:
    return math.ceil(height / _OUT), math.ceil(width / _OUT)


def _parts(x: Tensor, outputs: int) -> list[slice]:
    """Which images (N, C, H, W) are computed at once."""
    high, wide = _tiles(x.shape[2], x.shape[3])
    step = max(1, _IN_CACHE // (_IN**2 * high * wide * max(x.shape[1], outputs)))
    return [slice(i, i + step) for i in range(0, len(x), step)]


def _tiled(x: Tensor) -> Tensor:
    """A view of a map (N, 4 high, 4 wide, C) by tile: (4, 4, N, high, wide, C)."""
    n, h, w, c = x.shape
    return x.view(n, h // _OUT, _OUT, w // _OUT, _OUT, c).permute(2, 4, 0, 1, 3, 5)


def _frames(x: Tensor) -> Tensor:
    """The transformed 6x6 inputs of every tile of a map (N, C, H, W): (36, T, C)."""
    n, c, h, w = x.shape
    high, wide = _tiles(h, w)
    framed = x.new_zeros(n, _OUT * high + 2, _OUT * wide + 2, c)
    framed[:, 1 : 1 + h, 1 : 1 + w] = x.permute(0, 2, 3, 1)
    windows = framed.unfold(1, _IN, _OUT).unfold(2, _IN, _OUT)  # (N, high, wide, C, 6, 6)
    flat = windows.permute(4, 5, 0, 1, 2, 3).reshape(_IN**2, -1)
    return (_matrices(x.dtype)[2] @ flat).view(_IN**2, -1, c)


def _overlapped(frames: Tensor) -> Tensor:
    """The sum of frames (6, 6, N, high, wide, C) that lie 4 apart: (N, 4 high + 4, ..., C)."""
    _, _, n, high, wide, c = frames.shape
    frames = frames.permute(2, 3, 0, 4, 1, 5)  # (N, high, 6, wide, 6, C)
    total = frames.new_zeros(n, high + 1, _OUT, wide + 1, _OUT, c)
    total[:, :-1, :, :-1] = frames[:, :, :_OUT, :, :_OUT]
    total[:, 1:, :2, :-1] += frames[:, :, _OUT:, :, :_OUT]
    total[:, :-1, :, 1:, :2] += frames[:, :, :_OUT, :, _OUT:]
    total[:, 1:, :2, 1:, :2] += frames[:, :, _OUT:, :, _OUT:]
    return total.view(n, _OUT * (high + 1), _OUT * (wide + 1), c)


@functools.cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The transforms of output (16, 36), weights (36, 9) and input (36, 36)."""
    return tuple(torch.from_numpy(m).to(dtype) for m in transforms())
