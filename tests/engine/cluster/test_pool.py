"""How many actors there are; test_cluster.py runs them."""

from __future__ import annotations

import pytest

from retinart.engine.cluster.pool import PoolSettings, actors_of
from retinart.engine.errors import BadInput

TWO = {"CPU": 2.0}
BIG = {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "settings", "cpus", "actors"),
    [
        ([TWO], PoolSettings(), 2, 1),
        ([TWO, TWO], PoolSettings(cpus=1), 1, 4),
        ([TWO, BIG], PoolSettings(), 2, 9),
        ([BIG], PoolSettings(), 8, 2),
        ([TWO, BIG], PoolSettings(cpus=3), 3, 5),
        ([TWO, BIG], PoolSettings(gpus=1), 4, 4),
        ([BIG], PoolSettings(cpus=1, gpus=1), 1, 4),
        ([{"memory": 1.0}, TWO], PoolSettings(), 2, 1),
    ],
)
def test_actors_fit_on_the_nodes(
    nodes: list[dict[str, float]], settings: PoolSettings, cpus: int, actors: int
) -> None:
    assert actors_of(nodes, settings) == (cpus, actors)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [(PoolSettings(cpus=3), "3 CPUs"), (PoolSettings(gpus=1), "1 CPUs and a GPU")],
)
def test_no_node_has_room(settings: PoolSettings, wanted: str) -> None:
    with pytest.raises(BadInput, match=f"no node of the cluster has {wanted}: .* 2 CPUs"):
        actors_of([TWO], settings)


def test_no_cpus() -> None:
    with pytest.raises(BadInput, match="`cpus` is 0"):
        PoolSettings(cpus=0)
