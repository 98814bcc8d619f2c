"""FP16 as types in the graph: the network and the selection in half precision, the rest in FP32.

TensorRT runs a strongly typed network as it is written, so the file decides the precision. A tensor
with magnitudes above 65504, which FP16 cannot hold, stays FP32 with a Cast on each side.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from retinart.calib.network import network_nodes
from retinart.engine.errors import BadInput
from retinart.engine.model.onnx_file import with_graph

LARGEST = 65504.0  # of IEEE half precision
FP16_QDQ_OPSET = 19
MARGIN = 2.0  # other images may give larger magnitudes than the observed ones
# Sums over a whole map overflow first.
_NEVER_HALF = frozenset({"InstanceNormalization", "Shape", "QuantizeLinear", "DequantizeLinear"})
# Behind the raw outputs, what only moves or compares values: FP16 changes none of them, nor their
# order, and the large maps stay half as large until the best rows are picked.
_SELECTION = frozenset({"Transpose", "Reshape", "ReduceMax", "GatherND"})
# of these only the first inputs are feature maps
_FEATURE_MAPS = {"Resize": 1, "Shape": 0, **dict.fromkeys(_SELECTION, 1)}


def to_fp16(
    model: onnx.ModelProto, peaks: Mapping[str, float]
) -> tuple[onnx.ModelProto, dict[str, float]]:
    """A copy of a model whose network computes in FP16.

    Precondition: a file of `retinart export` or `retinart calibrate`, FP32 where it is not INT8.
    Postcondition: input and normalisation keep their types, and so does everything from the picked
    rows of the raw outputs on. Every float tensor of the network is FP16, except the returned ones.

    Args:
        peaks: the largest magnitude that was seen of each tensor, by name. A tensor without one is
            assumed to fit.

    Returns:
        The model, and the magnitude of each tensor that does not fit and so stays FP32.

    Raises:
        BadInput: the network is FP16 already, or FP16 cannot hold one of its scales exactly.
    """
    nodes = network_nodes(model)
    constants = {i.name: i for i in model.graph.initializer}
    if any(i.data_type == TensorProto.FLOAT16 for i in constants.values()):
        raise BadInput("the model is FP16 already", fix="Convert the FP32 file that it came from")
    opset = next(o.version for o in model.opset_import if o.domain == "")
    if opset < FP16_QDQ_OPSET and any(n.op_type == "QuantizeLinear" for n in nodes):
        raise BadInput(
            f"the INT8 file has opset {opset}, whose Q/DQ does not take FP16",
            why="an older retinart wrote it",
            fix="Export and calibrate again",
        )
    large = {name: peak for name, peak in peaks.items() if peak * MARGIN > LARGEST}
    for node in nodes:
        for name in node.input:
            if name in constants and constants[name].data_type == TensorProto.FLOAT:
                peak = float(np.abs(numpy_helper.to_array(constants[name])).max(initial=0.0))
                if peak > LARGEST:
                    large[name] = peak
    writer = _Writer(model.graph, {n.output[0] for n in nodes}, large)
    writer.write()
    result = with_graph(model, writer.nodes, writer.constants.values(), writer.inputs)
    onnx.checker.check_model(result, full_check=True)
    return result, {name: large[name] for name in sorted(large) if name in writer.kept}


class _Writer:
    """Gives each of the network's tensors one type, and casts where two types meet."""

    def __init__(
        self, graph: onnx.GraphProto, network: set[str], large: Mapping[str, float]
    ) -> None:
        self._graph, self._large = graph, large
        self.constants = {i.name: i for i in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[tuple[str, int], str] = {}
        self.kept: set[str] = set()  # tensors that are too large
        self._casts: set[str] = set()
        nodes = [n for n in graph.node if n.output[0] in network]
        self._integer = {n.output[0] for n in nodes if n.op_type in ("QuantizeLinear", "Shape")}
        self._half = {n.output[0] for n in nodes if self._computes_in_half(n)}
        for node in graph.node:
            if node.op_type in _SELECTION and node.input[0] in self._half:
                self._half.add(node.output[0])
        read_in_half = {name for n in nodes if n.output[0] in self._half for name in n.input}
        # A DQ has the type of its readers, and its Q the same: TensorRT refused a pair of two types
        # (github.com/NVIDIA/TensorRT/issues/4832). What does not fit is quantized in FP32.
        quantized = {n.output[0]: n.input[0] for n in nodes if n.op_type == "QuantizeLinear"}
        for node in nodes:
            is_read = node.op_type == "DequantizeLinear" and node.output[0] in read_in_half
            if is_read and quantized.get(node.input[0]) not in large:
                self._half.update({node.output[0], node.input[0]} - self.constants.keys())

    def write(self) -> None:
        """Go through the graph's nodes, and put Casts in front of those that need them."""
        for node in self._graph.node:
            half = node.output[0] in self._half
            count = _FEATURE_MAPS.get(node.op_type, len(node.input))
            for index, name in enumerate(node.input[:count]):
                self.inputs[node.name, index] = self._typed(name, half)
            if half and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                self._check_scale(node.input[1])
            self.nodes.append(node)

    def _computes_in_half(self, node: onnx.NodeProto) -> bool:
        """Whether all of an operation's numbers fit. Q and DQ do not compute."""
        too_large = {*node.input, node.output[0]} & self._large.keys()
        self.kept |= too_large
        return not too_large and node.op_type not in _NEVER_HALF

    def _typed(self, name: str, half: bool) -> str:
        """The name of a value in the type that a node reads: FP16 if it computes in half."""
        constant = self.constants.get(name)
        if constant is not None:
            is_float = constant.data_type == TensorProto.FLOAT
            return self._half_constant(constant) if half and is_float else name
        if name in self._integer or half == (name in self._half):
            return name
        cast = f"{name}/{'fp16' if half else 'fp32'}"
        if cast not in self._casts:
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self.nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=to))
            self._casts.add(cast)
        return cast

    def _half_constant(self, constant: onnx.TensorProto) -> str:
        name = f"{constant.name}/fp16"
        if name not in self.constants:
            halves = numpy_helper.to_array(constant).astype(np.float16)
            self.constants[name] = numpy_helper.from_array(halves, name)
        return name

    def _check_scale(self, name: str) -> None:
        """Refuse a scale that FP16 would change: the file would quantize differently."""
        scale = numpy_helper.to_array(self.constants[name])
        if (scale.astype(np.float16) != scale).any():
            raise BadInput(
                f"FP16 cannot hold the scale {name}",
                why="an older retinart calibrated the file",
                fix="Calibrate again",
            )
