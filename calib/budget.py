"""The fewest layers in float that keep AP within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retinart.engine.errors import CheckFailed

CONFIRMED = 8  # kept layers up to which each is tried in INT8 once more


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the search decided.

    Attributes:
        kept: layers that stay in float.
        drop: what the model loses with them, in the score's unit.
        trials: drop of every set of kept layers that was measured.
    """

    kept: tuple[str, ...]
    drop: float
    trials: dict[tuple[str, ...], float]


def fewest_in_float(
    ranked: Sequence[str], drop_of: Callable[[tuple[str, ...]], float], max_drop: float
) -> Choice:
    """The fewest layers to keep in float so that the drop is at most `max_drop`.

    The layers go back in the order of `ranked`: their number doubles until the drop fits, and is
    then bisected. Since the rank comes from one layer at a time, the result is confirmed: where
    few layers are kept, each is tried in INT8 once more, the least sensitive first.

    Args:
        ranked: layers, the most sensitive first.
        drop_of: measures the drop with these layers in float.
        max_drop: what may be lost.

    Raises:
        CheckFailed: the drop does not fit with all layers in float either.
    """
    trials: dict[tuple[str, ...], float] = {}

    def fits(kept: tuple[str, ...]) -> bool:
        if kept not in trials:
            trials[kept] = drop_of(kept)
        return trials[kept] <= max_drop

    too_few, enough = -1, 0
    while not fits(tuple(ranked[:enough])):
        if enough >= len(ranked):
            raise CheckFailed(
                f"a drop of at most {max_drop} cannot be kept",
                why=f"with every layer in float it is {trials[tuple(ranked)]:.2f}",
                fix="Look at the FP32 model first, or allow a larger `max_drop`",
            )
        too_few, enough = enough, min(max(1, 2 * enough), len(ranked))
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if fits(tuple(ranked[:middle])):
            enough = middle
        else:
            too_few = middle
    kept = tuple(ranked[:enough])
    if len(kept) <= CONFIRMED:
        for layer in reversed(kept):
            fewer = tuple(other for other in kept if other != layer)
            if fits(fewer):
                kept = fewer
    return Choice(kept=kept, drop=trials[kept], trials=trials)
