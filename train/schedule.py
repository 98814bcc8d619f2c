"""The learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal


def learning_rate(
    step: int,
    steps: int,
    *,
    peak: float,
    warmup_steps: int,
    schedule: Literal["cosine", "step"] = "cosine",
    milestones: Sequence[float] = (),
) -> float:
    """Linear warm-up to `peak` (Goyal et al. 2017), then down.

    Args:
        step: from 0 to `steps` - 1.
        warmup_steps: steps of the warm-up, which takes half of the run at most.
        schedule: "cosine" ends at 0 (Loshchilov and Hutter 2017). "step" divides the rate by ten at
            each milestone, as the paper does at 2/3 and 8/9 of its 90k steps.
        milestones: shares of `steps`.
    """
    warmup = min(warmup_steps, steps // 2)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return peak * 0.1 ** sum(step >= share * steps for share in milestones)
