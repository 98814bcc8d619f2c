"""Steps of 8-bit numbers, for files and for networks that learn with them."""

from __future__ import annotations

import numpy as np


def half_step(step: float) -> float:
    """The step, or the next larger one that FP16 has; 1 for a step of 0."""
    step = step if step > 0 else 1.0
    with np.errstate(over="ignore"):
        half = np.float16(step)
    if float(half) < step:  # NumPy would compare in FP16, where the two are equal
        half = np.nextafter(half, np.float16(np.inf))
    return float(half) if np.isfinite(half) else step
