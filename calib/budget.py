"""The fewest layers in float that keep AP within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from retinart.engine.errors import CheckFailed

CONFIRMED = 8  # kept layers up to which each is tried in INT8 once more


def fewest_in_float(
    ranked: Sequence[str], drop_of: Callable[[tuple[str, ...]], float], max_drop: float
) -> tuple[str, ...]:
    """The fewest layers to keep in float so that the drop is at most `max_drop`.

    Layers go back to float in the order of `ranked`: their number doubles until the drop fits, and
    is then bisected. The rank judges each layer alone and may be wrong about layers together. So
    where few layers are kept, each is tried in INT8 once more, the least sensitive first.

    Args:
        ranked: layers, the most sensitive first.
        drop_of: measures the drop with these layers in float; no set is measured twice.
        max_drop: how much may be lost.

    Returns:
        The layers that stay in float.

    Raises:
        CheckFailed: the drop is too large even with all layers in float.
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
                f"the drop cannot be kept at {max_drop} or below",
                why=f"with every layer in float it can be {trials[tuple(ranked)]:.2f}",
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
    return kept
