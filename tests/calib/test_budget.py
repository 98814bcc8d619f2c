"""The search for the fewest layers in float, on drops whose answer is known."""

from __future__ import annotations

import itertools

import pytest

from retinart.calib.budget import fewest_in_float
from retinart.engine.errors import CheckFailed

LAYERS = tuple(f"layer{i}" for i in range(20))


class Additive:
    """A model in which every INT8 layer costs its own share of AP."""

    def __init__(self, costs: dict[str, float]) -> None:
        self.costs = costs
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, kept: tuple[str, ...]) -> float:
        self.calls.append(kept)
        return sum(cost for layer, cost in self.costs.items() if layer not in kept)


def test_nothing_is_kept_when_all_fits() -> None:
    drop = Additive(dict.fromkeys(LAYERS, 0.01))
    assert fewest_in_float(LAYERS, drop, 0.3) == ()
    assert drop.calls == [()]


@pytest.mark.parametrize("needed", range(1, 21))
def test_the_fewest_of_the_rank(needed: int) -> None:
    """Costs fall along the rank: the budget decides how far down it one has to go."""
    drop = Additive(dict.fromkeys(LAYERS, 1.0))
    assert fewest_in_float(LAYERS, drop, 20 - needed) == LAYERS[:needed]
    assert len(drop.calls) == len(set(drop.calls)), "nothing is measured twice"
    assert len(drop.calls) <= 10 + 8


def test_a_layer_that_costs_nothing_goes_back() -> None:
    """The rank is wrong about layer0 and layer1: they look bad alone and cost no AP."""
    drop = Additive({**dict.fromkeys(LAYERS, 0.0), "layer2": 2.0, "layer4": 1.0})
    assert set(fewest_in_float(LAYERS, drop, 0.5)) == {"layer2", "layer4"}
    assert fewest_in_float(LAYERS, drop, 1.0) == ("layer2",)


def test_it_is_the_smallest_set_where_layers_add_up() -> None:
    """Against every subset, for a rank that is right."""
    layers = LAYERS[:6]
    costs = dict(zip(layers, (5.0, 3.0, 2.0, 1.0, 0.5, 0.1), strict=True))
    for budget in (0.0, 0.3, 1.0, 1.7, 4.0, 7.0, 20.0):
        drop = Additive(costs)
        smallest = min(
            size
            for size in range(7)
            for kept in itertools.combinations(layers, size)
            if drop(kept) <= budget
        )
        assert len(fewest_in_float(layers, Additive(costs), budget)) == smallest


def test_a_budget_that_cannot_be_kept() -> None:
    with pytest.raises(CheckFailed, match=r"with every layer in float it can be 3\.00"):
        fewest_in_float(LAYERS, lambda kept: 3.0, 1.0)
