"""Work of one process that takes turns, so that a noisy moment slows all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Result = TypeVar("Result")


def alternate(
    arms: Mapping[str, Callable[[], Result]], turns: int, *, warm_up: int = 1
) -> dict[str, list[Result]]:
    """What each arm gave in each turn. Every other turn goes the other way round.

    Args:
        arms: the works by name.
        turns: that count.
        warm_up: turns before them, which do not count.
    """
    given: dict[str, list[Result]] = {name: [] for name in arms}
    for turn in range(-warm_up, turns):
        for name in list(arms)[:: -1 if turn % 2 else 1]:
            result = arms[name]()
            if turn >= 0:
                given[name].append(result)
    return given


def milliseconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)
