"""Winograd's algorithm in training: the outputs and gradients of the direct sum."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import retinart.train.model.winograd as module
from retinart.train.model.winograd import FastConvolutions, pays, transform_weight, winograd

Arguments = tuple[Tensor, Tensor, Tensor]


def _arguments(height: int, width: int, dtype: torch.dtype = torch.float64) -> Arguments:
    """Input (2, 5, H, W), weight and bias of a convolution with 3 outputs."""
    random = torch.Generator().manual_seed(0)
    shapes = (2, 5, height, width), (3, 5, 3, 3), (3,)
    x, weight, bias = (torch.randn(s, generator=random, dtype=dtype) for s in shapes)
    x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def _fast(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return winograd(x, transform_weight(weight), bias)


def _direct(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1)


def _all_of(run: Callable[..., Tensor], arguments: Arguments) -> list[Tensor]:
    """The output, and the gradients of input, weight and bias."""
    y = run(*arguments)
    slope = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, arguments, slope)]


def _equal(found: list[Tensor], wanted: list[Tensor], error: float) -> bool:
    return all(
        f.shape == w.shape and (f - w).norm() < error * w.norm()
        for f, w in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 4), (1, 1), (5, 7), (6, 3)])
@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_it_equals_the_direct_sum(
    height: int, width: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IN_CACHE", at_once)
    arguments = _arguments(height, width)
    assert _equal(_all_of(_fast, arguments), _all_of(_direct, arguments), 1e-12)


def test_its_error_in_fp32_is_that_of_rounding() -> None:
    arguments = _arguments(24, 20, torch.float32)
    assert _equal(_all_of(_fast, arguments), _all_of(_direct, arguments), 5e-6)


def test_its_gradients_are_those_of_its_outputs() -> None:
    assert torch.autograd.gradcheck(_fast, _arguments(3, 5))


def test_inputs_of_any_layout_and_constant_ones_will_do() -> None:
    x, weight, bias = _arguments(6, 8)
    assert _equal(
        _all_of(_fast, (x.contiguous(), weight, bias)), _all_of(_direct, (x, weight, bias)), 1e-12
    )
    y = _fast(x.detach(), weight, bias.detach())
    (of_weight,) = torch.autograd.grad(y.sum(), weight)
    assert torch.allclose(of_weight, torch.autograd.grad(_direct(x, weight, bias).sum(), weight)[0])


def _calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that are called from now on, and every size pays."""
    calls = []

    def noting(name: str) -> Callable[..., Tensor]:
        work = getattr(module, name)

        def noted(*args: Tensor) -> Tensor:
            calls.append(name)
            found: Tensor = work(*args)
            return found

        return noted

    monkeypatch.setattr(module, "pays", lambda *sizes: True)
    for name in ("winograd", "transform_weight"):
        monkeypatch.setattr(module, name, noting(name))
    return calls


def test_a_shared_weight_is_transformed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, conv = _calls(monkeypatch), nn.Conv2d(2, 3, 3, 1, 1)
    maps = [torch.ones(1, 2, side, side) for side in (8, 4)]
    wanted = [conv(x) for x in maps]
    assert not calls
    with FastConvolutions():
        found = [conv(x) for x in maps]
    assert calls == ["transform_weight", "winograd", "winograd"]
    assert _equal(found, wanted, 1e-5)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, 1, 1, groups=2),
        nn.Conv2d(4, 4, 3, 1, 2, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, 1, 1).double(),
    ],
)
def test_other_convolutions_stay_as_they_are(
    conv: nn.Conv2d, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, x = _calls(monkeypatch), torch.ones(1, 4, 8, 8, dtype=conv.weight.dtype)
    wanted = conv(x)
    with FastConvolutions():
        assert torch.equal(conv(x), wanted)
        F.conv2d(x, conv.weight[:, :1], None, groups=4)
    assert not calls


def test_it_pays_with_many_channels_and_pixels() -> None:
    """As both passes were timed, for images, channels, outputs, height and width."""
    assert pays(4, 256, 256, 32, 40)
    assert pays(4, 256, 256, 16, 20)
    assert not pays(4, 256, 256, 8, 10)
    assert not pays(4, 512, 512, 8, 10)
    assert not pays(4, 256, 27, 32, 40)
    assert not pays(1, 1, 1, 512, 512)
