"""The network part: a PyTorch module, traced with torch.fx, becomes ONNX nodes one to one.

Tracing keeps the module's own names, so a quantization report or a profile names
`backbone.layer1.0.conv1` and not `Conv_17`. Each batch norm is folded into the convolution before
it. Any module made of the operations in `_Emitter` can be exported; another operation raises an
error that names it.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from retinart.engine.errors import BadInput
from retinart.export.graph import GraphBuilder


def emit_network(
    graph: GraphBuilder, model: nn.Module, value: str, *, flip_input_channels: bool
) -> Any:
    """Add the nodes of a module to a graph.

    Args:
        model: in evaluation mode, taking one tensor (N, 3, H, W).
        value: name of the input value.
        flip_input_channels: the value's channels come in the reverse of the order that the first
            convolution expects. Its weights are flipped, which costs nothing at run time.

    Returns:
        What the module returns, with names in place of tensors.

    Raises:
        BadInput: the module is in training mode, or uses an operation that cannot be exported.
    """
    if model.training:
        raise BadInput("the model is in training mode", fix="Call model.eval() before exporting")
    traced = fx.symbolic_trace(model)
    return _Emitter(graph, traced, flip_input_channels).run(value)


class _Emitter:
    def __init__(self, graph: GraphBuilder, traced: fx.GraphModule, flip: bool) -> None:
        self.graph, self.traced, self.flip = graph, traced, flip
        self.values: dict[fx.Node, Any] = {}
        self.modules = dict(traced.named_modules())
        self.uses: dict[str, int] = {}  # how often each module ran: levels share the heads

    def run(self, value: str) -> Any:
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = value
            elif node.op == "call_module":
                self.values[node] = self._module(node)
            elif isinstance(node.target, type) and issubclass(node.target, tuple):
                self.values[node] = node.target(*self._names(node.args))  # a named tuple
            elif node.op == "call_function":
                self.values[node] = self._function(node)
            elif node.op == "output":
                return self._names(node.args[0])
            else:
                raise _unsupported(node)
        raise AssertionError("a traced graph ends in an output")

    def _names(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, self.values.__getitem__)

    def _module(self, node: fx.Node) -> str:
        target = str(node.target)
        module = self.modules[target]
        x: str = self.values[_first(node)]
        name = target
        if (count := self.uses.get(target, 0)) > 0:
            name = f"{target}@{count}"
        self.uses[target] = count + 1
        match module:
            case nn.Identity():
                return x
            case nn.BatchNorm2d():  # folded when its convolution was emitted
                if not self._folds(_first(node), node):
                    raise _unsupported(node)
                return x
            case nn.Conv2d():
                return self._conv(node, module, x, target, name)
            case nn.GroupNorm():
                return self._group_norm(module, x, target, name)
            case nn.ReLU():
                return self.graph.op("Relu", x, name=name)
            case nn.MaxPool2d(kernel_size=int(k), stride=int(s), padding=int(p), ceil_mode=False):
                return self.graph.op(
                    "MaxPool", x, name=name, kernel_shape=[k, k], strides=[s, s], pads=[p] * 4
                )
        raise _unsupported(node)

    def _function(self, node: fx.Node) -> str:
        x = self.values[_first(node)]
        # named after the module that calls it, such as backbone.layer1.0.add
        stack = list(node.meta.get("nn_module_stack", {}))
        name = ".".join([*stack[-1:], node.name.rstrip("_0123456789")])
        if node.target is F.relu:
            return self.graph.op("Relu", x, name=name)
        if node.target in (operator.add, torch.add):
            return self.graph.op("Add", x, self.values[_first(node, 1)], name=name)
        if node.target is F.interpolate and node.kwargs.get("mode") == "nearest":
            scale = node.kwargs["scale_factor"]
            assert isinstance(scale, float)
            scales = self.graph.const([1.0, 1.0, scale, scale], np.float32)
            return self.graph.op(
                "Resize", x, "", scales, name=name, mode="nearest",
                coordinate_transformation_mode="asymmetric", nearest_mode="floor",
            )  # fmt: skip
        raise _unsupported(node)

    def _conv(self, node: fx.Node, conv: nn.Conv2d, x: str, target: str, name: str) -> str:
        weight = conv.weight.detach().double()
        bias = torch.zeros(conv.out_channels).double()
        if conv.bias is not None:
            bias = conv.bias.detach().double()
        users = list(node.users)
        if len(users) == 1 and self._folds(node, users[0]):
            norm = self.modules[str(users[0].target)]
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_var is not None and norm.running_mean is not None
            scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
            weight = weight * scale[:, None, None, None]
            bias = (bias - norm.running_mean.double()) * scale + norm.bias.detach().double()
        if self.flip and _first(node).op == "placeholder":
            weight = weight.flip(1)
        padding = conv.padding
        assert not isinstance(padding, str)
        return self.graph.op(
            "Conv", x,
            self.graph.const(weight.numpy(), np.float32, f"{target}.weight"),
            # a bias for each node, though levels share it: OpenVINO fuses one that has one reader
            self.graph.const(bias.numpy(), np.float32, f"{name}.bias"),
            name=name, kernel_shape=list(conv.kernel_size), strides=list(conv.stride),
            pads=[*padding, *padding], dilations=list(conv.dilation), group=conv.groups,
        )  # fmt: skip

    def _folds(self, conv: fx.Node, norm: fx.Node) -> bool:
        return (
            conv.op == norm.op == "call_module"
            and isinstance(self.modules[str(conv.target)], nn.Conv2d)
            and isinstance(self.modules[str(norm.target)], nn.BatchNorm2d)
            and len(conv.users) == 1
        )

    def _group_norm(self, norm: nn.GroupNorm, x: str, target: str, name: str) -> str:
        """Instance norm over groups, a form that every opset and runtime has."""
        groups, graph = norm.num_groups, self.graph
        ones = graph.const(np.ones(groups), np.float32)
        zeros = graph.const(np.zeros(groups), np.float32)
        shape = graph.op("Shape", x, name=f"{name}/shape")
        y = graph.reshape(x, 0, groups, -1)  # (N, G, C/G * Hi * Wi)
        y = graph.op("InstanceNormalization", y, ones, zeros, name=f"{name}/norm", epsilon=norm.eps)
        y = graph.op("Reshape", y, shape, name=f"{name}/back")
        weight, bias = (
            graph.const(p.detach().numpy().reshape(1, -1, 1, 1), np.float32, f"{target}.{kind}")
            for kind, p in (("weight", norm.weight), ("bias", norm.bias))
        )
        y = graph.op("Mul", y, weight, name=f"{name}/scale")
        return graph.op("Add", y, bias, name=name)


def _first(node: fx.Node, index: int = 0) -> fx.Node:
    argument = node.args[index]
    if not isinstance(argument, fx.Node):
        raise _unsupported(node)
    return argument


def _unsupported(node: fx.Node) -> BadInput:
    return BadInput(
        f"the model's operation {node.format_node()} cannot be exported",
        fix="Use the operations of train/model/retinanet.py, or add it to export/network.py",
    )
