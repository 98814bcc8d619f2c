"""Winograd's algorithm in place of 3x3 convolutions: the same numbers, only where it pays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn.functional import conv2d

from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import read_image
from retinart.engine.runtime.openvino_api import load_openvino
from retinart.engine.runtime.winograd import Times, expected_times, pays, use_winograd
from retinart.engine.runtime.winograd_graph import transforms

Array = npt.NDArray[np.float32]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def convolution(x: Any, weight: Array, **how: Any) -> Any:
    """A convolution of OpenVINO: 3x3 and padded by 1 by default."""
    ops = load_openvino().opset13
    plain = {"strides": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1], "dilations": [1, 1]}
    made = ops.convolution(x, ops.constant(weight), **{**plain, **how})
    made.input_value(1).get_node().set_friendly_name("weight")
    return made


def model_of(shape: list[int], weight: Array, **how: Any) -> Any:
    openvino = load_openvino()
    x = openvino.opset13.parameter(shape, np.float32)
    return openvino.Model([convolution(x, weight, **how)], [x], "one convolution")


def run(model: Any, x: Array) -> Array:
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    found: Array = load_openvino().Core().compile_model(model, "CPU", config)([x])[0]
    return found


def types(model: Any) -> Counter[str]:
    return Counter(op.get_type_name() for op in model.get_ops())


def test_the_transforms_are_exact() -> None:
    """A tile of 6x6 and a kernel of 3x3 give the 4x4 of the sum, to the digits of a double."""
    rng = np.random.default_rng(0)
    tile, kernel = rng.standard_normal((6, 6)), rng.standard_normal((3, 3))
    out, weight, frame = transforms()
    found = out @ ((weight @ kernel.ravel()) * (frame @ tile.ravel()))
    want = conv2d(torch.from_numpy(tile)[None, None], torch.from_numpy(kernel)[None, None])
    np.testing.assert_allclose(found.reshape(4, 4), want[0, 0].numpy(), atol=1e-12)


@pytest.mark.parametrize("size", [(8, 12), (7, 13), (5, 6), (1, 1), (2, 40)])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_outputs(size: tuple[int, int], batch: int) -> None:
    weight, x = normal(20, 16, 3, 3), normal(batch, 16, *size, seed=1)
    model = model_of([-1, 16, *size], weight)
    assert use_winograd(model, always=True) == 1 and types(model)["MatMul"] == 4
    want = conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding=1)
    np.testing.assert_allclose(run(model, x), want.numpy(), atol=1e-4)


def test_the_error_is_about_that_of_the_direct_sum() -> None:
    weight, x = normal(256, 256, 3, 3), normal(1, 256, 20, 20, seed=1)
    exact = conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), padding=1)
    direct, fast = (model_of([1, 256, 20, 20], weight) for _ in range(2))
    assert use_winograd(fast, always=True) == 1
    errors = [float(np.std(run(m, x) - exact.numpy())) for m in (direct, fast)]
    assert 0 < errors[1] < 2.5 * errors[0]  # four times with the points 0, 1, -1, 2, -2


@pytest.mark.parametrize(
    ("shape", "kernel", "how"),
    [
        ([1, 8, 16, 16], 3, {"strides": [2, 2]}),
        ([1, 8, 16, 16], 3, {"dilations": [2, 2]}),
        ([1, 8, 16, 16], 3, {"pads_end": [0, 1]}),
        ([1, 8, 16, 16], 3, {"auto_pad": "same_upper"}),
        ([1, 8, 16, 16], 5, {}),
        ([1, 8, -1, 16], 3, {}),
    ],
)
def test_what_stays(shape: list[int], kernel: int, how: dict[str, Any]) -> None:
    model = model_of(shape, normal(8, 8, kernel, kernel), **how)
    assert use_winograd(model, always=True) == 0 and types(model)["Convolution"] == 1


def test_quantized_weights_stay() -> None:
    openvino = load_openvino()
    ops = openvino.opset13
    x = ops.parameter([1, 8, 16, 16], np.float32)
    bytes_ = ops.constant(np.ones((8, 8, 3, 3), np.int8))
    weight = ops.multiply(ops.convert(bytes_, "f32"), np.float32(0.1))
    y = ops.convolution(x, weight, [1, 1], [1, 1], [1, 1], [1, 1])
    assert use_winograd(openvino.Model([y], [x], "quantized"), always=True) == 0


def test_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows of tiles at a time give the same as all of them."""
    monkeypatch.setattr("retinart.engine.runtime.winograd_graph._VALUES", 36 * 16 * 2)
    weight, x = normal(20, 16, 3, 3), normal(1, 16, 23, 8, seed=1)
    model = model_of([1, 16, 23, 8], weight)
    assert use_winograd(model, always=True) == 1 and types(model)["MatMul"] > 3 * 4
    want = conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding=1)
    np.testing.assert_allclose(run(model, x), want.numpy(), atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("biases", "bands"), [((0.5, 0.5), 1), ((0.5, -1.0), 1), ((0.5, 0.5), 9)])
def test_a_head(
    batch: int, biases: tuple[float, float], bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two layers with bias and ReLU on two levels: the levels share products, and stay apart."""
    monkeypatch.setattr("retinart.engine.runtime.winograd_graph._VALUES", (1 << 16) // bands)
    openvino = load_openvino()
    ops, sizes = openvino.opset13, ((9, 14), (5, 3))
    weights = [normal(16, 16, 3, 3, seed=i) / 8 for i in range(2)]
    kernels = [ops.constant(weight) for weight in weights]
    inputs = [ops.parameter([-1, 16, *size], np.float32) for size in sizes]
    outputs = []
    for x, bias in zip(inputs, biases, strict=True):
        for kernel in kernels:
            x = ops.convolution(x, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
            x = ops.relu(ops.add(x, ops.constant(np.full((1, 16, 1, 1), bias, np.float32))))
        outputs.append(x)
    model = openvino.Model(outputs, inputs, "head")
    assert use_winograd(model, always=True) == 4 and types(model)["Convolution"] == 0
    # the second layer reads what the first one wrote, if the bias is the same on both levels
    assert types(model)["Transpose"] == (4 if biases[0] == biases[1] else 8)
    given = [normal(batch, 16, *size, seed=3) for size in sizes]
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(model, "CPU", config)(given)
    for i, (x, bias) in enumerate(zip(given, biases, strict=True)):
        want = torch.from_numpy(x)
        for weight in weights:
            want = torch.relu(conv2d(want, torch.from_numpy(weight), padding=1) + bias)
        np.testing.assert_allclose(found[i], want.numpy(), atol=1e-4)


def test_a_weight_used_twice_in_a_row() -> None:
    """Then one convolution needs the other, and they cannot share a product."""
    openvino = load_openvino()
    x = first = openvino.opset13.parameter([1, 16, 9, 8], np.float32)
    weight = normal(16, 16, 3, 3) / 8
    kernel, plain = openvino.opset13.constant(weight), ([1, 1],) * 4
    for _ in range(2):
        x = openvino.opset13.convolution(x, kernel, *plain)
    model = openvino.Model([x], [first], "in a row")
    assert use_winograd(model, always=True) == 2
    given = normal(1, 16, 9, 8, seed=1)
    want = torch.from_numpy(given)
    for _ in range(2):
        want = conv2d(want, torch.from_numpy(weight), padding=1)
    np.testing.assert_allclose(run(model, given), want.numpy(), atol=1e-4)


def test_weights_in_another_order() -> None:
    """One level has a before b, and the other one b before a: products of both would need both."""
    openvino = load_openvino()
    ops, plain = openvino.opset13, ([1, 1],) * 4
    weights = [normal(16, 16, 3, 3, seed=i) / 8 for i in range(2)]
    kernels = [ops.constant(weight) for weight in weights]
    inputs = [ops.parameter([1, 16, 9, 8], np.float32) for _ in range(2)]
    orders = ((0, 1), (1, 0))
    outputs = []
    for x, order in zip(inputs, orders, strict=True):
        for i in order:
            x = ops.convolution(x, kernels[i], *plain)
        outputs.append(x)
    model = openvino.Model(outputs, inputs, "crossed")
    assert use_winograd(model, always=True) == 4 and types(model)["Convolution"] == 0
    given = normal(1, 16, 9, 8, seed=1)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(model, "CPU", config)([given, given])
    for i, order in enumerate(orders):
        want = torch.from_numpy(given)
        for j in order:
            want = conv2d(want, torch.from_numpy(weights[j]), padding=1)
        np.testing.assert_allclose(found[i], want.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("times", "replaced"),
    [
        ({16: (1.0, 0.5), 8: (0.2, 0.3)}, 2),  # the small one loses less
        ({16: (1.0, 0.95), 8: (0.2, 0.2)}, 0),  # hardly faster
        ({16: (1.0, 0.8), 8: (0.2, 0.5)}, 0),  # the small one loses more
    ],
)
def test_levels_are_replaced_together(times: dict[int, Times], replaced: int) -> None:
    assert use_winograd(levels_of(16, 8), lambda sizes: times[sizes[2]]) == replaced


def levels_of(*sizes: int) -> Any:
    openvino = load_openvino()
    inputs = [openvino.opset13.parameter([1, 8, n, n], np.float32) for n in sizes]
    weight = openvino.opset13.constant(normal(8, 8, 3, 3))
    plain = ([1, 1], [1, 1], [1, 1], [1, 1])
    outputs = [openvino.opset13.convolution(x, weight, *plain) for x in inputs]
    return openvino.Model(outputs, inputs, "levels")


def test_levels_share_their_weights() -> None:
    """Heads have the same on each level. It is transformed once, and in one product with all."""
    model = levels_of(16, 8)
    assert use_winograd(model, always=True) == 2
    sizes = [list(op.get_shape()) for op in model.get_ops() if op.get_type_name() == "Constant"]
    assert sizes.count([9, 8 * 8]) == 1 and types(model)["MatMul"] == 4


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [  # channels, outputs, height, width: as measured on 2 cores
        ((256, 256, 76, 100), True),
        ((256, 819, 76, 100), True),
        ((256, 256, 19, 25), True),
        ((512, 512, 19, 25), True),
        ((128, 128, 76, 100), True),
        ((64, 64, 152, 200), True),
        ((96, 96, 32, 40), True),
        ((256, 256, 10, 13), False),
        ((256, 36, 10, 13), False),
        ((64, 64, 10, 13), False),
        ((3, 64, 152, 200), False),
    ],
)
def test_where_it_pays(sizes: tuple[int, int, int, int], expected: bool) -> None:
    assert pays([expected_times(sizes)]) is expected


def test_detections(
    model_path: Path, int8_path: Path, small_scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole model, in batches too; and only FP32 files in FP32 are changed."""
    replaced = list[int]()

    def count(model: Any, *_: Any) -> int:
        replaced.append(use_winograd(model, always=True))
        return replaced[-1]

    monkeypatch.setattr("retinart.engine.runtime.openvino_runner.use_winograd", count)
    pictures = [read_image(path) for path in sorted(small_scenes.iterdir())[:3]]
    with Detector(model_path, threads=1, conf=0.02, cache=False) as detector:
        fast = [*detector(pictures), detector(pictures[0])]
    assert len(replaced) == 1 and replaced[0] > 20
    with Detector(model_path, threads=1, conf=0.02, compute="fp32-direct", cache=False) as detector:
        direct = [*detector(pictures), detector(pictures[0])]
    Detector(int8_path, cache=False).close()
    assert len(replaced) == 1
    for a, b in zip(direct, fast, strict=True):
        result = match(a, b, floor=0.03)
        assert result.same and result.matched > 0, result
        assert a.confidence.tobytes() != b.confidence.tobytes()
