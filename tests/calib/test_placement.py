"""What is quantized, and the float islands that are left between INT8 layers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import helper

from retinart.calib.network import network_nodes
from retinart.calib.placement import place
from retinart.calib.quantize import quantize
from retinart.engine.model.info import HEADS, INPUT
from retinart.export.settings import ExportSettings
from retinart.train.model.checkpoint import save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from support import export_unchecked

_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")


def float_islands(model: onnx.ModelProto) -> list[tuple[str, ...]]:
    """The islands of a quantized graph, each as the names of its nodes, in the graph's order.

    A runtime fuses the bias, the addition of a quantized skip and a ReLU into an INT8 convolution,
    so these do not count. Neither does a max-pool in front of a Q: both can change places, so it
    runs in INT8, as a Resize does between a DQ and a Q. The heads' outputs come after the last INT8
    layer, so they lie between no layers.
    """
    nodes = network_nodes(model)
    fused = _fused(nodes)
    islands: dict[int, list[str]] = {}
    where: dict[str, int] = {}  # tensor -> island
    for number, node in enumerate(nodes):
        if node.op_type in _QUANTIZATION or node.output[0] in fused:
            continue
        joined = {where[name] for name in node.input if name in where}
        islands[number] = [name for i in sorted(joined) for name in islands.pop(i)] + [node.name]
        where.update({tensor: number for tensor, i in where.items() if i in joined})
        where[node.output[0]] = number
    ends = {where.get(n.input[0]) for n in nodes if n.op_type == "QuantizeLinear"}
    return [tuple(names) for number, names in islands.items() if number in ends]


def _fused(nodes: list[onnx.NodeProto]) -> set[str]:
    """Tensors that INT8 convolutions make, with what runs within them."""
    producer = {output: n.op_type for n in nodes for output in n.output}
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    fused: set[str] = set()
    for node in nodes:
        quantized = [producer.get(name) == "DequantizeLinear" for name in node.input]
        runs_within = {
            "Conv": quantized[:2] == [True, True],
            "Add": any(quantized) and not fused.isdisjoint(node.input),
            "Relu": node.input[0] in fused,
            "MaxPool": node.input[0] in fused and readers.get(node.output[0]) == {"QuantizeLinear"},
            "Resize": quantized[0] and readers.get(node.output[0]) == {"QuantizeLinear"},
        }
        if runs_within.get(node.op_type, False):
            fused.add(node.output[0])
    return fused


@pytest.fixture(scope="module")
def r18(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """ResNet-18, heads without norms."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("r18")
    variant = preset("resnet18", 3)
    model = build_retinanet(variant).eval()
    path = folder / "r18.pt"
    save_checkpoint(path, model=model, variant=variant, classes=("a", "b", "c"), training={})
    settings = ExportSettings(height=64, width=96, tensorrt=False)
    return onnx.load(export_unchecked(path, folder / "r18.onnx", settings, self_test=False))


def int8(model: onnx.ModelProto, *keep_float: str) -> onnx.ModelProto:
    placement = place(model).without(keep_float)
    return quantize(model, placement, dict.fromkeys(placement.activations, 1.0))


def test_what_is_quantized(model_path: Path) -> None:
    """Every convolution; additions at their skip; a Resize whose input a convolution reads."""
    graph = onnx.load(model_path)
    placement = place(graph)
    nodes = {n.name: n for n in graph.graph.node}
    convolutions = [n.name for n in graph.graph.node if n.op_type == "Conv"]
    assert sorted(convolutions) == sorted(placement.convolutions)
    resized = {r: nodes[r].input[0] for r in nodes if nodes[r].op_type == "Resize"}
    assert placement.same_threshold == resized and len(resized) == 2
    less = placement.without({"box_head.output"}).convolutions
    left = set(convolutions) - set(less)
    assert {name.split("@")[0] for name in left} == {"box_head.output"} and len(left) == 5
    kinds = Counter(
        nodes[name].op_type for readers in placement.activations.values() for name, _ in readers
    )
    additions = 4 + 2  # a shortcut a stage, two of the pyramid
    assert kinds == {"Conv": len(placement.convolutions), "Add": additions, "Resize": 2}
    skips = {
        (name, index): tensor
        for tensor, readers in placement.activations.items()
        for name, index in readers
        if nodes[name].op_type == "Add"
    }
    made_by = {tensor: nodes[tensor].op_type for tensor in skips.values()}
    assert Counter(made_by.values()) == {"MaxPool": 1, "Conv": 3, "Resize": 2}


def test_a_network_without_norms_has_no_islands(r18: onnx.ModelProto) -> None:
    assert float_islands(int8(r18)) == []


def test_quantized_upsampling_changes_no_value(r18: onnx.ModelProto) -> None:
    """A Resize only copies values, so it may read the DQ that is there."""
    placement = place(r18)
    thresholds = dict.fromkeys(placement.activations, 3.0)
    graphs = [
        quantize(r18, each, thresholds)
        for each in (placement, dataclasses.replace(placement, resizes={}))
    ]
    makers = [
        [by_output[n.input[0]] for n in graph.graph.node if n.op_type == "Resize"]
        for graph in graphs
        for by_output in [{o: n.op_type for n in graph.graph.node for o in n.output}]
    ]
    assert makers == [["DequantizeLinear"] * 2, ["Conv", "Add"]]
    frames = np.random.default_rng(3).integers(0, 256, (1, 64, 96, 3), np.uint8)
    first, second = (raw_outputs(graph, frames) for graph in graphs)
    for name in HEADS:
        np.testing.assert_array_equal(first[name], second[name], name)


def raw_outputs(model: onnx.ModelProto, frames: npt.NDArray[np.uint8]) -> dict[str, object]:
    """By ONNX Runtime, node by node as the file says."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    network = onnx.ModelProto()
    network.CopyFrom(model)
    network.graph.output.extend(onnx.ValueInfoProto(name=name) for name in HEADS)
    session = ort.InferenceSession(network.SerializeToString(), options)
    return dict(zip(HEADS, session.run(list(HEADS), {INPUT: frames}), strict=True))


@pytest.mark.parametrize(
    "kept", ["fpn.output.1", "fpn.lateral.0"], ids=["no reader beside it", "no addition behind it"]
)
def test_upsampling_in_float(r18: onnx.ModelProto, kept: str) -> None:
    """It reads no DQ of its own making, and none where its result is float."""
    placement = place(r18).without({kept})
    (resize,) = (n for n in r18.graph.node if n.name == "fpn.interpolate_1")
    assert (resize.name, 0) not in placement.activations.get(resize.input[0], ())


def test_group_norms_are_islands(tiny_path: Path) -> None:
    """`tiny` has two convolutions with a norm behind each in both heads, on five levels."""
    islands = float_islands(int8(onnx.load(tiny_path)))
    norms = [i for i in islands if any(name.endswith("/norm") for name in i)]
    assert len(norms) == (2 + 2) * 5 and islands == norms
    for island in norms:
        assert Counter(name.endswith("/norm") for name in island)[True] == 1


def test_grouped_convolutions_stay_in_float_by_choice(r18: onnx.ModelProto) -> None:
    grouped = {"backbone.layer1.0.conv2", "backbone.layer3.1.conv2"}
    model = onnx.ModelProto()
    model.CopyFrom(r18)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.name in grouped and attribute.name == "group":
                attribute.i = 32  # as ResNeXt's
    placement = place(model)
    kept = placement.matching("grouped")
    assert set(kept) == grouped and grouped < set(placement.convolutions)
    assert set(placement.convolutions) - set(placement.without(kept).convolutions) == grouped
    assert placement.without(kept).grouped == () == place(r18).grouped


def test_a_layer_in_float_is_an_island(r18: onnx.ModelProto) -> None:
    before = float_islands(int8(r18))
    after = float_islands(int8(r18, "backbone.layer2.1.conv1"))
    new = [island for island in after if island not in before]
    assert len(after) == len(before) + 1
    assert new == [("backbone.layer2.1.conv1", "backbone.layer2.1.relu")]


def test_a_bad_placement_is_seen(r18: onnx.ModelProto) -> None:
    """A ReLU that reads a Q/DQ pair is cut off from its convolution."""
    model = int8(r18)
    zero, scale = (i.name for i in model.graph.initializer if i.name in (
        "quantize/zero_point", "normalized/scale"))  # fmt: skip
    if "scale" not in scale:
        zero, scale = scale, zero
    nodes = list(model.graph.node)
    at = next(i for i, n in enumerate(nodes) if n.name == "backbone.layer1.0.relu")
    data = nodes[at].input[0]
    nodes[at].input[0] = "bad/back"
    nodes[at:at] = [
        helper.make_node("QuantizeLinear", [data, scale, zero], ["bad/q"], name="bad/q"),
        helper.make_node("DequantizeLinear", ["bad/q", scale, zero], ["bad/back"], name="bad/dq"),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert ("backbone.layer1.0.relu",) in float_islands(model)
