"""Resizing as Pillow, torchvision and OpenCV compute it, and the sizes that projects resize to."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from retinart.engine.media.images import Image
from retinart.engine.model.interpolate import interpolate
from retinart.engine.model.resize_rule import ResizeRule
from retinart.engine.model.variant import IMAGENET_MEAN, IMAGENET_STD, Interpolation, SizeRounding

FORMS: tuple[Interpolation, ...] = ("opencv", "pillow", "float")
# (height, width) of the image and of the result: up, down, both, unchanged, by two exactly, odd
# sides, and sides of one pixel
SIZES = [
    ((30, 40), (73, 91)),
    ((333, 501), (97, 131)),
    ((31, 200), (77, 63)),
    ((48, 64), (48, 64)),
    ((48, 64), (24, 64)),
    ((96, 128), (48, 64)),
    ((7, 5), (96, 69)),
    ((97, 61), (1, 1)),
    ((1, 50), (3, 20)),
    ((50, 1), (20, 3)),
    ((1, 1), (9, 7)),
]


def noise(height: int, width: int) -> Image:
    rng = np.random.default_rng(height * 10_000 + width)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def resized(image: Image, size: tuple[int, int], form: Interpolation) -> Image:
    target = np.full((*size, 3), 77, np.uint8)
    interpolate(image, target, form)
    return target


def pillow_axis(image: Image, length: int) -> Image:
    """Pillow's arithmetic along the first axis, in whole numbers: weights of 22 bits."""
    source = len(image)
    if source == length:
        return image
    result = np.empty((length, *image.shape[1:]), np.uint8)
    scale = source / length
    reach = max(scale, 1.0)
    for i in range(length):
        centre = (i + 0.5) * scale
        first, end = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), source)
        distance = np.abs(np.arange(first, end) + 0.5 - centre)
        weights = np.maximum(1 - distance / reach, 0)
        whole = np.floor(weights / weights.sum() * 2**22 + 0.5).astype(np.int64)
        total = np.tensordot(whole, image[first:end].astype(np.int64), 1)
        result[i] = np.clip((total + 2**21) >> 22, 0, 255)
    return result


def torchvision(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """An (H, W, 3) picture as torchvision's RetinaNets resize it."""
    x = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]
    y = torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    return y[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_pillow_s_arithmetic(source: tuple[int, int], size: tuple[int, int]) -> None:
    image = noise(*source)
    across = pillow_axis(image.transpose(1, 0, 2), size[1]).transpose(1, 0, 2)
    np.testing.assert_array_equal(resized(image, size, "pillow"), pillow_axis(across, size[0]))


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_torchvision_s_floats_rounded_once(source: tuple[int, int], size: tuple[int, int]) -> None:
    image = noise(*source)
    exact = torchvision(image.astype(np.float32), size)
    got = resized(image, size, "float").astype(np.float32)
    assert np.abs(got - exact).max() < 0.5 + 0.01
    # torchvision normalises first, which makes no difference: rounding alone is left
    mean, std = (np.array(v, np.float32) for v in (IMAGENET_MEAN, IMAGENET_STD))
    normalised = torchvision((image - mean) / std, size)
    assert (np.abs((got - mean) / std - normalised) * std).max() < 0.5 + 0.01


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_opencv_is_a_grey_level_from_floats(source: tuple[int, int], size: tuple[int, int]) -> None:
    image = noise(*source)
    opencv, floats = (resized(image, size, form).astype(int) for form in ("opencv", "float"))
    assert np.abs(opencv - floats).max() <= 1


def test_pillow_averages_what_the_others_skip() -> None:
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::3] = 240
    assert {
        int(v) for form in ("opencv", "float") for v in resized(stripes, (30, 30), form).flat
    } == {0}
    inner = resized(stripes, (30, 30), "pillow")[1:-1, 1:-1]
    assert inner.min() > 70 and inner.max() < 90


@pytest.mark.parametrize("form", FORMS)
def test_layouts(form: Interpolation) -> None:
    """Channels are resized alike, any strides are read, and only the target is written."""
    image = noise(60, 81)
    for view in (image[:, ::-1], image[::2, ::2], image[:, :, ::-1], image.transpose(1, 0, 2)):
        size = (view.shape[0] * 2 // 3, view.shape[1] * 3 // 2)
        whole = resized(np.ascontiguousarray(view), size, form)
        frame = np.full((size[0] + 5, size[1] + 9, 3), 7, np.uint8)
        interpolate(view, frame[: size[0], : size[1]], form)
        np.testing.assert_array_equal(frame[: size[0], : size[1]], whole)
        assert (frame[size[0] :] == 7).all() and (frame[:, size[1] :] == 7).all()
    flipped = resized(np.ascontiguousarray(image[..., ::-1]), (40, 50), form)
    np.testing.assert_array_equal(flipped[..., ::-1], resized(image, (40, 50), form))
    np.testing.assert_array_equal(resized(image, (60, 81), form), image)


def sizes_to_try() -> list[tuple[int, int]]:
    rng = np.random.default_rng(3)
    some = [(int(h), int(w)) for h, w in rng.integers(50, 2500, (3000, 2))]
    return [(480, 640), (427, 640), (640, 427), (720, 1280), (1, 900), *some]


def fits(rounding: SizeRounding) -> ResizeRule:
    return ResizeRule(
        short_side=800,
        max_size=1333,
        canvas=None,
        pad_multiple=32,
        pad_value=(0, 0, 0),
        size_rounding=rounding,
    )


def test_torchvision_s_sizes() -> None:
    """What PyTorch makes of torchvision's scale; 4 in 100 sizes are a pixel under the floor."""
    rule, floor, short = fits("float_floor"), fits("floor"), 0
    for height, width in sizes_to_try():
        scale = min(800 / min(height, width), 1333 / max(height, width))
        theirs = (math.floor(height * scale), math.floor(width * scale))
        if height * width < 40_000 and min(theirs) > 0:
            tensor = torch.nn.functional.interpolate(
                torch.empty(1, 1, height, width),
                scale_factor=scale,
                recompute_scale_factor=True,
                mode="bilinear",
            )
            assert tuple(tensor.shape[2:]) == theirs
        assert rule.fit(height, width) == (max(1, theirs[0]), max(1, theirs[1]))
        short += rule.fit(height, width) != floor.fit(height, width)
    assert 60 < short < 240


def test_sizes_rounded_to_the_nearest() -> None:
    """mmdetection's; detectron2's but for a tie where its two steps of floats decide otherwise."""
    rule, other = fits("nearest"), 0
    for height, width in sizes_to_try():
        scale = min(1333 / max(height, width), 800 / min(height, width))
        mmdetection = (int(height * scale + 0.5), int(width * scale + 0.5))
        assert rule.fit(height, width) == mmdetection
        sides = np.array([height, width]) * (800 / min(height, width))
        sides[np.argmin([height, width])] = 800
        if sides.max() > 1333:
            sides *= 1333 / sides.max()
        other += rule.fit(height, width) != tuple((sides + 0.5).astype(int))
    assert other <= 3


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="'lanczos' is not one of opencv, pillow, float"):
        ResizeRule(
            short_side=None,
            max_size=None,
            canvas=(32, 32),
            pad_multiple=32,
            pad_value=(0, 0, 0),
            interpolation="lanczos",  # type: ignore[arg-type]
        )
