"""Weights and scales in INT8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from retinart.calib.numbers import INT8
from retinart.calib.placement import place
from retinart.calib.quantize import quantize, quantize_weights


def test_weights_per_channel() -> None:
    weights = np.random.default_rng(5).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    weights *= np.array([1, 10, 100, 0], np.float32)[:, None, None, None]
    integers, scales = quantize_weights(weights)
    assert integers.dtype == np.int8 and np.abs(integers).max() == 127
    back = integers * scales[:, None, None, None]
    assert (np.abs(back - weights).max(axis=(1, 2, 3)) <= scales / 2 + 1e-6).all()
    assert not integers[3].any() and scales[3] == 1.0


def test_scales_are_values_of_fp16(model_path: Path) -> None:
    model = onnx.load(model_path)
    placement = place(model)
    model = quantize(model, placement, dict.fromkeys(placement.activations, 1.0))
    scales = [i for i in model.graph.initializer if i.name.endswith("/scale")]
    scales = [i for i in scales if not i.name.startswith("normalize/")]
    assert len(scales) > 40
    for scale in scales:
        values = onnx.numpy_helper.to_array(scale)
        assert np.array_equal(values.astype(np.float16).astype(np.float32), values)


@pytest.mark.parametrize("peak", [1e-12, 1e-6, 12.7, 3.3, 8e6, 1e9, 0.0])
def test_a_scale_covers_its_peak_and_is_never_zero(peak: float) -> None:
    """Rounded to FP16 it is rounded up, and what is too small for FP16 does not become 0."""
    scale = INT8.step(peak)
    assert scale > 0 and 127 * scale >= peak * (1 - 1e-12)
