"""Statistics of interleaved measurements: plain functions of numbers.

Two contestants that are timed in turn on the same images give pairs. When the machine slows down
for a while, both halves of a pair slow down, so ratios of pairs are steadier than times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput

Values = Sequence[float] | npt.NDArray[np.float64]
RESAMPLES = 2000
FEWEST = 6  # fewer values give no 95% interval of the median: 2 * 0.5^6 < 0.05
NOISY = 0.10  # spread of the reference workload from which on figures are not to be trusted


def check_rounds(repeats: int) -> None:
    """Refuse fewer rounds than give an interval.

    Raises:
        BadInput: they are too few.
    """
    if repeats < FEWEST:
        raise BadInput(
            f"{repeats} rounds are too few",
            why=f"the median of less than {FEWEST} has no 95% interval",
            fix="Raise `repeats`",
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def turns(repeats: int, images: int) -> Iterator[tuple[int, int, bool]]:
    """(repeat, image, whether A goes first) for every pair: A B, B A, A B, ...

    An image that has A first in one repeat has B first in the next.
    """
    for repeat in range(repeats):
        for image in range(images):
            yield repeat, image, (repeat + image) % 2 == 0


def ratio_of_medians(slow: Values, fast: Values, *, paired: bool = True) -> Estimate:
    """The ratio of the medians of some values and of others.

    Args:
        slow, fast: the values.
        paired: they are the halves of pairs; else they were measured at different times.
    """
    a, b = np.asarray(slow, float), np.asarray(fast, float)
    first = _resamples(len(a))
    second = first if paired else _resamples(len(b), seed=1)
    resampled = np.median(a[first], axis=1) / np.median(b[second], axis=1)
    return _estimate(float(np.median(a) / np.median(b)), resampled)


def median_of_ratios(slow: Values, fast: Values) -> Estimate:
    """The median over pairs of how many times one half is the other."""
    return median(np.asarray(slow, float) / np.asarray(fast, float))


def median(values: Values) -> Estimate:
    """The median of independent values."""
    v = np.asarray(values, float)
    return _estimate(float(np.median(v)), np.median(v[_resamples(len(v))], axis=1))


def spread(values: Values) -> float:
    """Distance of the 10th from the 90th percentile, as a share of the median."""
    low, middle, high = np.percentile(np.asarray(values, float), (10, 50, 90))
    return float((high - low) / middle)


def _resamples(n: int, seed: int = 0) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))


def _estimate(value: float, resampled: npt.NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Estimate(value=value, low=float(low), high=float(high))
