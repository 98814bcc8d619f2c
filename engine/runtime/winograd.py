"""Which 3x3 convolutions of a graph Winograd's algorithm computes.

It needs a quarter of the multiplications, and moves more data. That pays off with many channels.
`winograd_graph.py` has the algorithm.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

from retinart.engine.runtime.openvino_api import fold_constants
from retinart.engine.runtime.winograd_graph import (
    IN,
    KERNEL,
    OUT,
    Sizes,
    Writer,
    sizes_of,
    weight_name,
)

_A_MS = 1.1e8  # multiplications, on the CPU that `expected_times` is of
_MARGIN = 0.1  # by which it must be faster, as times are off by a tenth

Times = tuple[float, float]  # milliseconds of the direct sum, and by Winograd's algorithm


def use_winograd(
    model: Any, times: Callable[[Sizes], Times] | None = None, *, always: bool = False
) -> int:
    """Replace the convolutions of an `openvino.Model` that become faster; returns how many.

    These are 3x3, in FP32, without stride, dilation or groups, and padded by 1, on inputs whose
    height and width are fixed. Those that share a weight are replaced together or not at all.

    Args:
        model: changed in place.
        times: of a convolution both ways; None takes `expected_times`.
        always: replace also the convolutions that become slower.
    """
    of = times or expected_times
    groups = [g for g in _groups(model) if always or pays(of(sizes_of(op)) for op in g)]
    if groups:
        fold_constants(model)
        writer = Writer(model)
        for group in groups:
            writer.replace(group)
        model.validate_nodes_and_infer_types()
    return sum(map(len, groups))


def convolutions(model: Any) -> list[Any]:
    """The convolutions of an `openvino.Model` that can be replaced."""
    return [op for op in model.get_ordered_ops() if _fits(op)]


def expected_times(sizes: Sizes) -> Times:
    """The times of a convolution, from its sizes.

    Costs are counted in multiplications that take as long, on a CPU with AVX512: 1.5 for one of the
    product, 42 for a value of an input's or an output's tiles, and 30 for a weight. See
    benchmarks/results/winograd.md.
    """
    channels, outputs, height, width = sizes
    tiles = math.ceil(height / OUT) * math.ceil(width / OUT)
    product = channels * outputs * (1.5 * tiles + 30)
    moving = 42 * tiles * (channels + outputs)
    direct = KERNEL**2 * channels * outputs * height * width
    return direct / _A_MS, IN**2 * (product + moving) / _A_MS


def pays(times: Iterable[Times]) -> bool:
    """Whether convolutions become faster together, by more than their times are off."""
    direct, fast = map(sum, zip(*times, strict=True))
    return bool(fast < (1 - _MARGIN) * direct)


def _groups(model: Any) -> list[list[Any]]:
    """The convolutions that can be replaced together, each group after those that it needs.

    They have one weight, and none of them needs the output of another.
    """
    found: defaultdict[str, list[Any]] = defaultdict(list)
    needs: defaultdict[str, set[str]] = defaultdict(set)
    above = dict[str, set[str]]()  # weights of the convolutions that a node needs
    for op in model.get_ordered_ops():
        inputs = {value.get_node().get_name() for value in op.input_values()}
        seen = set[str]().union(*(above[name] for name in inputs))
        if _fits(op):
            weight = weight_name(op)
            found[weight].append(op)
            needs[weight] |= seen
            seen.add(weight)
        above[op.get_name()] = seen
    try:
        order = [*TopologicalSorter({w: sorted(needs[w]) for w in found}).static_order()]
    except CycleError:  # a weight's products would need each other
        return [[op] for op in model.get_ordered_ops() if _fits(op)]
    return [sorted(found[weight], key=lambda op: -math.prod(sizes_of(op))) for weight in order]


def _fits(op: Any) -> bool:
    if op.get_type_name() != "Convolution":
        return False
    weight, shape = op.input_value(1).get_node(), op.input_value(0).get_partial_shape()
    how = op.get_attributes()
    plain = {"strides": 1, "dilations": 1, "pads_begin": 1, "pads_end": 1}
    return bool(
        weight.get_type_name() == "Constant"
        and weight.get_element_type().get_type_name() == "f32"
        and list(weight.get_shape())[2:] == [KERNEL, KERNEL]
        and all(list(how[name]) == [value, value] for name, value in plain.items())
        and how["auto_pad"] == "explicit"
        and all(shape[i].is_static for i in (1, 2, 3))
    )
