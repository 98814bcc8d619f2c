"""A network that rounds as its INT8 file will, so that its weights learn to live with that.

Where it rounds and with which ranges comes from the record of `retinart calibrate`. In the backward
pass a rounding counts as nothing, and a clipped value has no gradient (Jacob et al. 2018).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from retinart.engine.common.bounded_reading import MIB, read_json
from retinart.engine.common.typed_json import from_plain
from retinart.engine.errors import BadInput
from retinart.engine.model.steps import half_step
from retinart.engine.runtime.saturation import halved
from retinart.train.model.retinanet import HeadOutputs, RetinaNet

_MOST = 1024 * MIB
_AGAIN = "Calibrate the FP32 file of these weights again, in int8"
QMAX = 127


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Where an INT8 file rounds.

    Attributes:
        thresholds: the magnitude that becomes 127, by tensor.
        reads: of each node that reads a rounded tensor: the tensor, and which input it is.
        weight_bits: 8 or 7.
    """

    thresholds: dict[str, float]
    reads: dict[str, tuple[str, int]]
    weight_bits: int = 8

    def __post_init__(self) -> None:
        if not self.reads or not {t for t, _ in self.reads.values()} <= self.thresholds.keys():
            raise ValueError("it does not say which nodes read rounded tensors")


def read_rounding(path: Path) -> Rounding:
    """The rounding of a record that `retinart calibrate` wrote.

    Raises:
        BadInput: it is missing or damaged, of FP8, or an older version wrote it.
    """
    data = read_json(path, noun="calibration record", most=_MOST, fix=_AGAIN)
    plain = data if isinstance(data, dict) else {}
    if plain.get("precision", "int8") != "int8":
        raise BadInput(f"{path} is of {plain['precision']}", fix=_AGAIN)
    known = {n: plain[n] for n in ("thresholds", "reads", "weight_bits") if n in plain}
    return from_plain(Rounding, known, f"the calibration record {path}", fix=_AGAIN)


class FakeQuantized(nn.Module):
    """A RetinaNet with rounded inputs and weights. It shares the network's weights.

    Args:
        net: its batch norms stay constant; see `freeze_batch_norms`.
        rounding: where it rounds.

    Raises:
        BadInput: the network has other nodes than the rounding.
    """

    def __init__(self, net: RetinaNet, rounding: Rounding) -> None:
        super().__init__()
        self.net = net
        self._run = _Rounding(fx.symbolic_trace(net), rounding)

    def forward(self, x: Tensor) -> HeadOutputs:
        """See `RetinaNet`."""
        found: HeadOutputs = self._run.run(x)
        return found


class _Rounding(fx.Interpreter):
    """Runs a traced network node by node, and rounds where the file has Q/DQ pairs."""

    def __init__(self, traced: fx.GraphModule, rounding: Rounding) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self._modules = dict(traced.named_modules())
        self._bits = rounding.weight_bits
        self._steps = {n: half_step(t / QMAX) for n, t in rounding.thresholds.items()}
        self._reads: dict[fx.Node, tuple[str, int]] = {}
        names = {node_name: node for node, node_name in _names(traced.graph)}
        if missing := [name for name in rounding.reads if name not in names]:
            raise BadInput(
                f"the calibration record is of another model: this one has no node {missing[0]}",
                fix=_AGAIN,
            )
        for name, read in rounding.reads.items():
            self._reads[names[name]] = read

    def run_node(self, n: fx.Node) -> Any:
        """Run a node on rounded values, if the file has such a node."""
        if n not in self._reads:
            return super().run_node(n)
        tensor, index = self._reads[n]
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        args = tuple(
            _rounded(a, self._steps[tensor]) if i == index else a for i, a in enumerate(args)
        )
        if n.op != "call_module":
            return self.call_function(n.target, args, kwargs)
        conv = self._modules[str(n.target)]
        assert isinstance(conv, nn.Conv2d)
        weight = _rounded_weight(conv.weight, self._scale_after(n), self._bits)
        return conv._conv_forward(args[0], weight, conv.bias)

    def _scale_after(self, conv: fx.Node) -> Tensor | None:
        """The factor (O,) that the batch norm after a convolution will bring into its weights."""
        users = list(conv.users)
        norm = self._modules.get(str(users[0].target)) if len(users) == 1 else None
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            return None
        assert norm.running_var is not None
        return norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)


def _names(graph: fx.Graph) -> list[tuple[fx.Node, str]]:
    """The nodes that may round, with their names in the file; see `export/network.py`."""
    found, uses = [], Counter[str]()
    for node in graph.nodes:
        if node.op == "call_module":
            target = str(node.target)
            found.append((node, f"{target}@{uses[target]}" if uses[target] else target))
            uses[target] += 1
        elif node.op == "call_function":
            stack = list(node.meta.get("nn_module_stack", {}))
            name = ".".join([*stack[-1:], node.name.rstrip("_0123456789")])
            found.append((node, f"{name}_{uses[name]}" if uses[name] else name))
            uses[name] += 1
    return found


def _rounded(x: Tensor, step: float) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, step, 0, -QMAX - 1, QMAX)


def _rounded_weight(weight: Tensor, scale: Tensor | None, bits: int) -> Tensor:
    """A weight as its file will hold it, where a batch norm's scale is part of it."""
    with torch.no_grad():
        factor = torch.ones(len(weight), dtype=torch.float64) if scale is None else scale
        shape = (-1, 1, 1, 1)
        folded = (weight.double() * factor.view(shape)).float()
        peaks = folded.abs().flatten(1).amax(1).tolist()
        steps = torch.tensor([half_step(peak / QMAX) for peak in peaks], device=weight.device)
        whole = torch.round(folded / steps.view(shape)).clamp(-QMAX, QMAX)
        if bits == 7:
            whole = torch.from_numpy(halved(whole.cpu().numpy().astype("int8"))).to(whole) * 2
        exact = (whole * steps.view(shape)).double()
        # a batch norm of factor 0 hides its channel
        found = torch.where(factor.view(shape) != 0, exact / factor.view(shape), 0).to(weight)
    return weight + (found - weight).detach()
