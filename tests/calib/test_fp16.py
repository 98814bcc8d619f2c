"""FP16 as types: what changes, what must not, and what would overflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, numpy_helper, shape_inference

from retinart.calib.convert import convert
from retinart.calib.fp16 import LARGEST, MARGIN, to_fp16
from retinart.calib.network import network_nodes
from retinart.calib.observe import observe_peaks
from retinart.calib.settings import ConvertSettings
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import read_image
from retinart.engine.model.info import CANDIDATES, HEADS, INPUT, NORMALIZED, read_info
from support import save_changed

LARGE, NEXT = "backbone.layer1.0.conv1", "backbone.layer1.0.conv2"

Command = Callable[..., CompletedProcess[str]]
Array = npt.NDArray[Any]


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor of a graph, as the standard infers it."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {v.name: v.type.tensor_type.elem_type for v in values}


def pair_types(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """The type that a Q reads and the type that its DQ gives, by the quantized tensor."""
    types = types_of(model)
    read = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    dequantized = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    return {
        n.input[0]: (types[read[n.input[0]]], types[n.output[0]])
        for n in dequantized
        if n.input[0] in read
    }


def with_large(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The same function, with a layer's weights and bias times a factor, and the next's over it."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    factors = {f"{LARGE}.weight": factor, f"{LARGE}.bias": factor, f"{NEXT}.weight": 1 / factor}
    for initializer in changed.graph.initializer:
        if initializer.name in factors:
            values = numpy_helper.to_array(initializer) * np.float32(factors[initializer.name])
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    return changed


@pytest.mark.parametrize("name", ["model_path", "dynamic_model_path", "int8_path", "tiny_path"])
def test_types(name: str, request: pytest.FixtureRequest) -> None:
    """Network and selection are FP16; what surrounds them has the types that it had."""
    before = onnx.load(request.getfixturevalue(name))
    after, large = to_fp16(before, {})
    assert large == {}
    old, new = types_of(before), types_of(after)
    network = {n.output[0] for n in network_nodes(before)}
    outside = {n.output[0] for n in before.graph.node} - network
    assert NORMALIZED in outside and {*HEADS, NORMALIZED} <= old.keys()
    kinds = {n.output[0]: n.op_type for n in before.graph.node}
    for tensor in outside:
        if kinds[tensor] not in ("Transpose", "Reshape", "ReduceMax", "GatherND"):
            assert new.get(tensor) == old.get(tensor), tensor
    for tensor in network:
        if kinds[tensor] == "InstanceNormalization":
            assert new[tensor] == TensorProto.FLOAT
        elif old[tensor] == TensorProto.FLOAT:
            assert new[tensor] == TensorProto.FLOAT16, tensor
        else:
            assert new[tensor] == old[tensor]
    floats = [i for i in after.graph.initializer if i.name.startswith(("backbone", "fpn"))]
    assert floats and all(i.data_type != TensorProto.FLOAT for i in floats)
    # a Cast into the network, three of each level's selection, and a pair around each norm
    norms = sum(kind == "InstanceNormalization" for kind in kinds.values())
    casts = [sum(n.op_type == "Cast" for n in m.graph.node) for m in (before, after)]
    assert casts[1] - casts[0] == 1 + 5 * 3 + 2 * norms
    pairs = pair_types(after)
    assert bool(pairs) == (name == "int8_path")
    assert all(q == dq == TensorProto.FLOAT16 for q, dq in pairs.values())


def test_a_pair_has_one_type_where_its_tensor_does_not_fit(int8_path: Path) -> None:
    model = onnx.load(int8_path)
    nodes = [n for n in network_nodes(model) if n.op_type == "QuantizeLinear"]
    first, other = nodes[0].input[0], nodes[5].input[0]
    assert first == NORMALIZED
    for tensor in (first, other):
        after, _ = to_fp16(model, {tensor: 2 * LARGEST})
        onnx.checker.check_model(after, full_check=True)
        pairs = pair_types(after)
        assert all(q == dq for q, dq in pairs.values())
        assert {q for q, _ in pairs.values()} == {TensorProto.FLOAT, TensorProto.FLOAT16}


@pytest.mark.parametrize("name", ["model_path", "int8_path"])
def test_detects_alike(
    name: str, request: pytest.FixtureRequest, small_scenes: Path, tmp_path: Path
) -> None:
    source = request.getfixturevalue(name)
    report = convert(source, tmp_path / "half.onnx", ConvertSettings())
    assert read_info(report.path).precision == {"model_path": "fp16"}.get(name, "int8+fp16")
    same = total = 0
    with Detector(source) as exact, Detector(report.path) as half:
        for path in sorted(small_scenes.iterdir()):
            found = match(exact(read_image(path))[:20], half(read_image(path)))
            same, total = same + found.matched, total + 20
    assert same >= 0.9 * total


def test_what_would_overflow_stays_fp32(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    """ONNX Runtime rounds to FP16 between layers, so it shows what a GPU would do."""
    image = read_image(sorted(small_scenes.iterdir())[0])
    large = tmp_path / "large.onnx"
    save_changed(with_large(onnx.load(model_path), 1e6), large)

    unchecked, checked = tmp_path / "unchecked.onnx", tmp_path / "checked.onnx"
    ran = retinart("convert", large, "-o", unchecked)
    assert ran.returncode == 0 and "were not checked against FP16" in ran.stderr
    ran = retinart("convert", large, "-o", checked, "--images", small_scenes, "--num", "4")
    assert ran.returncode == 0 and ran.stdout == f"{checked}\n"
    assert "ranges of 4 images were checked against FP16's 65504" in ran.stderr
    assert f"stays FP32: {LARGE}, which reached" in ran.stderr
    kept = read_info(checked).provenance["fp16"]["kept_fp32"]
    assert set(kept) == {LARGE, "backbone.layer1.0.relu"}
    assert all(peak * MARGIN > LARGEST for peak in kept.values())

    with Detector(large) as exact:
        expected = exact(image)[:20]
    with Detector(checked, runtime="onnxruntime") as half:
        assert match(expected, half(image)).matched >= 16
    with Detector(unchecked, runtime="onnxruntime") as half:
        assert match(expected, half(image)).matched < 10


def test_a_weight_beyond_fp16_stays_fp32(model_path: Path) -> None:
    changed, kept = to_fp16(with_large(onnx.load(model_path), 1e9), {})
    assert f"{LARGE}.weight" in kept
    types = types_of(changed)
    assert types[LARGE] == TensorProto.FLOAT
    assert types[NEXT] == TensorProto.FLOAT16


def test_peaks(model_path: Path, small_scenes: Path) -> None:
    """Of every tensor, the largest of all images."""
    graph, info = onnx.load(model_path), read_info(model_path)
    paths = sorted(small_scenes.iterdir())[:2]
    each = [observe_peaks(model_path, info, graph, [path]) for path in paths]
    both = observe_peaks(model_path, info, graph, paths)
    assert both == {name: max(peaks[name] for peaks in each) for name in both}
    assert min(both.values()) > 0 and {"backbone.conv1", LARGE} <= both.keys()


def test_the_record_beside_the_model_gives_the_ranges(
    retinart: Command, model_path: Path, int8_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "half.onnx"
    ran = retinart("convert", int8_path, "-o", out)
    assert ran.returncode == 0 and "ranges of model.int8.json, 4 images" in ran.stderr
    ran = retinart("convert", model_path, "-o", out, "--record", int8_path.with_suffix(".json"))
    assert ran.returncode == 0 and "ranges of model.int8.json, 4 images" in ran.stderr


def test_bad_input(
    retinart: Command, model_path: Path, dynamic_model_path: Path, int8_path: Path, tmp_path: Path
) -> None:
    record, out = int8_path.with_suffix(".json"), tmp_path / "out" / "half.onnx"

    def fails(message: str, *arguments: object) -> None:
        ran = retinart("convert", *arguments, "-o", out)
        assert (ran.returncode, ran.stdout) == (2, "") and message in ran.stderr
        assert not out.parent.exists()

    fails("does not fit dynamic", dynamic_model_path, "--record", record)
    fails("cannot read the calibration record", model_path, "--record", tmp_path / "absent.json")
    fails("Give one of them", model_path, "--record", record, "--images", tmp_path)
    old = onnx.load(int8_path)
    old.opset_import[0].version = 17
    onnx.save(old, tmp_path / "old.onnx")
    fails("has opset 17, whose Q/DQ does not take FP16", tmp_path / "old.onnx")
    half = convert(model_path, tmp_path / "half.onnx", ConvertSettings()).path
    fails("is fp16 already", half)
    with pytest.raises(BadInput, match="does not end in"):
        convert(model_path, tmp_path / "half.bin", ConvertSettings())


@pytest.mark.parametrize("name", ["model_path", "dynamic_model_path"])
def test_the_selection_in_fp16_is_exact(name: str, request: pytest.FixtureRequest) -> None:
    """From FP16 logits and deltas, also with ties, it gives what their FP32 form gives."""
    before = onnx.load(request.getfixturevalue(name))
    after, _ = to_fp16(before, {})
    kinds = types_of(after)
    large = [
        n
        for n in after.graph.node
        if n.op_type in ("Transpose", "ReduceMax", "GatherND") and n.name.startswith("candidates/p")
    ]
    assert len(large) == 5 * (2 + 1 + 2)
    assert {kinds[n.output[0]] for n in large} == {TensorProto.FLOAT16}
    assert {kinds[name] for name in CANDIDATES} == {TensorProto.FLOAT}

    draw = np.random.default_rng(2)
    grids = ((12, 16), (6, 8), (3, 4), (2, 2), (1, 1))
    shapes = [(1, channels, *grid) for channels in _channels(before) for grid in grids]
    raw = [np.round(draw.normal(0, 3, shape), 1).astype(np.float16) for shape in shapes]
    wide = dict(zip(HEADS, (r.astype(np.float32) for r in raw), strict=True))
    want = from_raw(before, wide)
    got = from_raw(after, dict(zip(HEADS, raw, strict=True)))
    assert int(want[0].sum()) > 20
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a, b)


def _channels(model: onnx.ModelProto) -> list[int]:
    shapes = {i.name: list(i.dims) for i in model.graph.initializer}
    return [shapes[f"{head}_head.output.bias"][0] for head in ("cls", "box")]


def from_raw(model: onnx.ModelProto, raw: dict[str, Array]) -> list[Array]:
    """The outputs of a graph for raw outputs of its heads, in ONNX Runtime."""
    ort = pytest.importorskip("onnxruntime")
    network = {n.output[0] for n in network_nodes(model)}
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:]
    part.graph.node.extend(n for n in model.graph.node if n.output[0] not in {*network, NORMALIZED})
    feeds = {**raw, NORMALIZED: np.zeros((1, 3, 96, 128), np.float32)}
    for name, value in feeds.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        part.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(part.SerializeToString(), options)
    feeds[INPUT] = np.zeros((1, 96, 128, 3), np.uint8)
    read = {i.name for i in session.get_inputs()}
    found: list[Array] = session.run(None, {n: v for n, v in feeds.items() if n in read})
    return found
