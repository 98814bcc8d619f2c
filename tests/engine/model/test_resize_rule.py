"""Resizing: the size that an image gets, where its pixels go, and the way back."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import cv2
import numpy as np
import pytest

from retinart.engine.media.images import Image
from retinart.engine.model.resize_rule import ResizeRule, round_up

PAD = (104, 116, 124)


def _rule(
    short: int | None = None,
    longest: int | None = None,
    canvas: tuple[int, int] | None = None,
    multiple: int = 32,
) -> ResizeRule:
    return ResizeRule(
        short_side=short, max_size=longest, canvas=canvas, pad_multiple=multiple, pad_value=PAD
    )


def _noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def _random_sizes(count: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(11)
    sides = np.exp(rng.uniform(0, np.log(9000), (count, 2))).astype(int)
    return [(int(h), int(w)) for h, w in sides]


@pytest.mark.parametrize("short", [400, 600, 800])
def test_sizes_are_torchvisions_floor_of_scale_times_side(short: int) -> None:
    longest = short * 1333 // 800
    rule = _rule(short, longest)
    for height, width in [(480, 640), (640, 480), (333, 500), (427, 640), *_random_sizes(2000)]:
        # in whole numbers, so that no rounding of a float can decide
        scale = min(Fraction(short, min(height, width)), Fraction(longest, max(height, width)))
        exact = (max(1, floor(height * scale)), max(1, floor(width * scale)))
        assert rule.fit(height, width) == exact, (height, width)


def test_the_short_side_is_exact_where_floats_fall_short() -> None:
    rule = _rule(1000)
    assert all(min(rule.fit(side, side + 50)) == 1000 for side in range(1, 2000))


@pytest.mark.parametrize("canvas", [(96, 128), (608, 800), (32, 32)])
def test_a_canvas_holds_every_size_and_is_filled_one_way(canvas: tuple[int, int]) -> None:
    rule = _rule(canvas=canvas)
    for height, width in _random_sizes(2000):
        h, w = rule.fit(height, width)
        assert 1 <= h <= canvas[0] and 1 <= w <= canvas[1]
        assert h == canvas[0] or w == canvas[1]
        # the aspect is kept to within a pixel
        assert abs(h * width / height - w) < 1 + width / height or 1 in (h, w)


def test_a_short_side_does_not_leave_its_canvas() -> None:
    rule = _rule(600, canvas=(608, 800))
    assert rule.fit(480, 640) == (600, 800)
    assert rule.fit(640, 480) == (608, 456)
    assert rule.fit(100, 1000) == (80, 800)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [((1, 1), (96, 96)), ((1, 9000), (1, 160)), ((9000, 1), (160, 1)), ((3, 5000), (1, 160))],
)
def test_extreme_shapes_keep_a_pixel(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    rule = _rule(96, 160)
    assert rule.fit(*size) == fitted
    batch, (resized,) = rule.apply([_noise(*size)])
    assert batch.shape == (1, round_up(fitted[0], 32), round_up(fitted[1], 32), 3)
    back = resized.to_source(np.array([[0, 0, fitted[1], fitted[0]]], np.float32))
    np.testing.assert_allclose(back, [[0, 0, size[1], size[0]]], rtol=1e-5)


@pytest.mark.parametrize("multiple", [32, 128])
def test_dynamic_canvases_are_the_next_multiples(multiple: int) -> None:
    rule = _rule(96, 160, multiple=multiple)
    for size in _random_sizes(300):
        fitted = rule.fit(*size)
        canvas = rule.canvas_for([fitted])
        assert all(
            c % multiple == 0 and 0 <= c - f < multiple for c, f in zip(canvas, fitted, strict=True)
        )
    assert rule.canvas_for([(10, 150), (100, 20)]) == (
        round_up(100, multiple),
        round_up(150, multiple),
    )


def test_pixels_and_padding() -> None:
    rule = _rule(canvas=(96, 128))
    images = [_noise(120, 180, 1), _noise(200, 100, 2), _noise(96, 128, 3)]
    batch, resized = rule.apply(images)
    assert batch.shape == (3, 96, 128, 3) and batch.dtype == np.uint8
    assert [r.size for r in resized] == [(85, 128), (96, 48), (96, 128)]
    assert [r.source_size for r in resized] == [(120, 180), (200, 100), (96, 128)]
    for image, part, canvas in zip(images, resized, batch, strict=True):
        h, w = part.size
        np.testing.assert_array_equal(canvas[:h, :w], cv2.resize(image, (w, h)))
        assert (canvas[h:] == PAD).all() and (canvas[:, w:] == PAD).all()
        assert np.shares_memory(part.frame, batch)
        np.testing.assert_array_equal(part.frame, canvas)
    np.testing.assert_array_equal(batch[2], images[2])  # at its own size nothing is resampled


def test_an_image_in_a_batch_is_what_it_is_alone() -> None:
    rule = _rule(canvas=(96, 128))
    images = [_noise(*size, seed=i) for i, size in enumerate([(50, 70), (300, 20), (96, 128)])]
    batch, _ = rule.apply(images)
    for image, frame in zip(images, batch, strict=True):
        np.testing.assert_array_equal(rule.apply([image])[0][0], frame)


def test_views_of_any_strides() -> None:
    rule, image = _rule(canvas=(96, 128)), _noise(240, 320)
    for view in (image[:, ::-1], image[::2, ::2], image[:, :, ::-1], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(
            rule.apply([view])[0], rule.apply([np.ascontiguousarray(view)])[0]
        )


@pytest.mark.parametrize("rule", [_rule(canvas=(96, 128)), _rule(96, 160), _rule(600, 999)])
def test_there_and_back(rule: ResizeRule) -> None:
    rng = np.random.default_rng(4)
    for height, width in _random_sizes(40):
        if height * width > 4_000_000:
            continue
        _, (resized,) = rule.apply([np.zeros((height, width, 3), np.uint8)])
        corners = rng.uniform(0, 1, (20, 2, 2)) * (width, height)
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
        canvas = resized.from_source(boxes)
        assert (canvas <= np.array([resized.size[1], resized.size[0]] * 2) * (1 + 1e-5)).all()
        np.testing.assert_allclose(
            resized.to_source(canvas), boxes, rtol=1e-4, atol=1e-3 * max(height, width) / 1000
        )


def test_boxes_in_the_padding_are_clipped_to_the_image() -> None:
    _, (resized,) = _rule(canvas=(96, 128)).apply([_noise(100, 50)])
    assert resized.size == (96, 48)
    boxes = np.array([[-9, -9, 200, 200], [60, 10, 100, 90], [12, 24, 24, 48]], np.float32)
    expected = np.array([[0, 0, 50, 100], [50, 10 / 0.96, 50, 90 / 0.96], [12.5, 25, 25, 50]])
    np.testing.assert_allclose(resized.to_source(boxes), expected, rtol=1e-5)
    assert resized.to_source(np.empty((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(("value", "multiple", "result"), [(1, 32, 32), (32, 32, 32), (33, 32, 64)])
def test_round_up(value: int, multiple: int, result: int) -> None:
    assert round_up(value, multiple) == result
