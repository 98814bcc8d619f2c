"""Rounding of weights: the sums it looks at, its optimum, the biases, and the files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from retinart.calib import round_weights as rounding_all
from retinart.calib import rounding
from retinart.calib.calibrate import calibrate
from retinart.calib.moments import Convolution, Moments, convolutions
from retinart.calib.rounding import best_steps, descend, error_of, round_weight
from retinart.calib.settings import CalibrationSettings
from retinart.engine.errors import BadInput
from retinart.engine.model.steps import half_step

Floats = npt.NDArray[np.float32]
STOP = 20  # weights; the first group has fewer


def made_convolution(weights: Floats, groups: int = 1, **changes: tuple[int, ...]) -> Convolution:
    given: dict[str, tuple[int, ...]] = {
        "strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0), **changes,
    }  # fmt: skip
    return Convolution(
        node="conv",
        tensor="x",
        weight="w",
        bias="b",
        rows=weights.reshape(groups, len(weights) // groups, -1),
        kernel=weights.shape[2:],
        **given,  # type: ignore[arg-type]
    )


def correlated(rng: np.random.Generator, count: int, size: int) -> Floats:
    """(1, count, size) values above 0 that vary together, as those after a ReLU do."""
    common = rng.normal(1, 1, (count, 1)) * rng.uniform(0.5, 1.5, size)
    return np.maximum(common + rng.normal(0, 0.5, (count, size)), 0).astype(np.float32)[None]


@pytest.mark.parametrize("groups", [1, 2])
def test_patches_are_what_a_convolution_multiplies(groups: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (1, 4, 9, 11)).astype(np.float32)
    weights = rng.normal(0, 1, (6, 4 // groups, 3, 2)).astype(np.float32)
    layer = made_convolution(weights, groups, strides=(2, 1), dilations=(1, 2), pads=(1, 2, 1, 2))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(weights), None, (2, 1), (1, 2), (1, 2), groups
    )[0].flatten(1)
    found = layer.patches(x, rng) @ layer.rows.transpose(0, 2, 1)  # (G, P, O)
    assert found.shape[1] == expected.shape[1] < 256  # all of them, in order
    found = found.transpose(0, 2, 1).reshape(6, -1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_descent_comes_near_the_best_rounding() -> None:
    """Against all 2^8 ways to round: never worse than the nearest, whose error is far larger."""
    rng, ratios = np.random.default_rng(1), []
    steps = np.full((1, 1), 0.1, np.float32)
    for _ in range(20):
        rows = rng.normal(0, 0.5, (1, 1, 8)).astype(np.float32)
        patches = correlated(rng, 200, 8)
        gram = patches.transpose(0, 2, 1) @ patches
        cross = rows @ gram
        low = np.floor(rows / 0.1)
        every = low + np.array([*itertools.product((0, 1), repeat=8)], np.float32)[None]
        found = descend(gram, cross, rows, steps, 127)
        assert ((found == low) | (found == low + 1)).all()
        constant = float((cross * rows).sum())
        best, nearest, learned = (
            float(error_of(gram, cross, whole * steps[..., None]).min()) + constant
            for whole in (every, np.round(rows / 0.1), found)
        )
        assert best <= learned * 1.001 and learned <= nearest * 1.001
        ratios.append((nearest / best, learned / best))
    nearest, learned = np.mean(ratios, axis=0)
    assert nearest > 5 and learned < 2, ratios


def test_the_steps_are_no_worse_than_the_range() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(0, 1, (1, 16, 36)).astype(np.float32)
    rows[0, 0, 0] = 6  # its input is nearly always 0, so it may be clipped
    patches = correlated(rng, 500, 36)
    patches[..., 0] *= 0.001
    gram = patches.transpose(0, 2, 1) @ patches
    cross = rows @ gram
    steps = best_steps(gram, cross, rows, 64)
    peaks = np.abs(rows).max(axis=2)[0]
    widest = np.array([[half_step(float(peak) / 64) for peak in peaks]], np.float32)

    def error(steps: Floats) -> Floats:
        rounded = np.clip(np.round(rows / steps[..., None]), -64, 64) * steps[..., None]
        return error_of(gram, cross, rounded)

    assert (error(steps) <= error(widest) + 1e-2).all()
    assert steps[0, 0] < 0.7 * widest[0, 0]


@pytest.mark.parametrize("how", ["nearest", "scaled", "learned"])
def test_biases_keep_the_mean_of_outputs(how: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(0, 1, (2, 3, 12)).astype(np.float32)
    moments = Moments(rows, products=how != "nearest")
    patches = np.concatenate([correlated(rng, 300, 12) for _ in range(2)])
    levels = {"a": patches, "b": 3 * patches}
    for node, values in levels.items():
        moments.add(node, values, 0.02)
    found = round_weight(moments, (6, 12, 1, 1), how, 7, shift=True)  # type: ignore[arg-type]
    assert found.encoded.shape == (6, 12, 1, 1) and np.abs(found.encoded).max() <= 64
    weights = (found.encoded.reshape(6, -1) * found.scales[:, None]).reshape(2, 3, 12)
    for node, values in levels.items():
        quantized = np.clip(np.round(values / 0.02), -128, 127) * 0.02
        change = (quantized @ weights.transpose(0, 2, 1)).mean(axis=1)
        change -= (values @ rows.transpose(0, 2, 1)).mean(axis=1)
        assert np.abs(change).max() > 1e-3
        np.testing.assert_allclose(change.ravel() + found.shifts[node], 0, atol=1e-4)


@pytest.mark.usefixtures("unmeasured")
def test_a_rounding_that_was_stopped_goes_on(
    model_path: Path, small_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same file, in which each weight is up or down, and each level has its own bias."""
    settings = CalibrationSettings(
        images=str(small_scenes), num=2, rounding="learned", correct_bias=True
    )
    monkeypatch.setattr(rounding, "SWEEPS", 1)
    monkeypatch.setattr(rounding, "SHARES", (0.9,))
    monkeypatch.setattr(rounding_all, "MOST", 24 << 20)
    whole = calibrate(model_path, tmp_path / "int8.onnx", settings)
    assert (whole.record.rounding, whole.record.correct_bias) == ("learned", True)
    constants = {i.name: numpy_helper.to_array(i) for i in onnx.load(whole.path).graph.initializer}
    first, second = (constants[f"cls_head.output{level}/bias"] for level in ("", "@1"))
    assert not np.array_equal(first, second)
    graph = onnx.load(model_path)
    nodes = {n.name for n in graph.graph.node if n.op_type == "Conv"}
    layers = {c.weight: c for c in convolutions(graph, nodes)}
    for name in ("fpn.p6.weight", "cls_head.output.weight"):
        integers, scales = constants[f"{name}/int8"], constants[f"{name}/scale"]
        exact = layers[name].rows[0] / scales[:, None]
        change = integers.reshape(exact.shape) - np.clip(exact, -127, 127)
        assert 0.5 < np.abs(change).max() < 1.001

    solve, calls = rounding.round_weight, []

    def stop(*given: object, **more: object) -> object:
        calls.append(given)
        if len(calls) == STOP:
            raise KeyboardInterrupt
        return solve(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(rounding_all, "round_weight", stop)
    out = tmp_path / "again" / "int8.onnx"
    with pytest.raises(KeyboardInterrupt):
        calibrate(model_path, out, settings)
    left = json.loads((out.parent / ".int8.calibrating.json").read_text("utf-8"))["content"]
    assert 0 < (done := len(left["rounded"])) < STOP
    assert calibrate(model_path, out, settings).path == out
    assert len(calls) == STOP + len(layers) - done
    assert out.read_bytes() == whole.path.read_bytes()


def test_rounding_needs_images(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs the layers' outputs on images"):
        CalibrationSettings(record=tmp_path / "r.json", rounding="learned")
    with pytest.raises(BadInput, match="Choose one of: nearest, scaled, learned"):
        CalibrationSettings(images="x", rounding="up")  # type: ignore[arg-type]
