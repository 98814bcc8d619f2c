"""Histograms of magnitudes in streaming form: memory does not grow with the number of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import CheckFailed

BINS = 2048


class Histogram:
    """Counts of |x| in equal bins from 0 to `upper`, which doubles when a value lies beyond it.

    Exact zeros are counted apart. Every quantization keeps them, and after a ReLU there are so many
    that they would outweigh the values that the choice of a range is about.

    Attributes:
        counts: (BINS,) values in each bin.
        upper: right edge of the last bin; 0 before the first value that is not zero.
        peak: the largest magnitude seen, exactly.
        zeros: exact zeros.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.upper = 0.0
        self.peak = 0.0
        self.zeros = 0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count the values of a tensor of any shape.

        Raises:
            CheckFailed: a value is NaN or infinite.
        """
        magnitudes = np.abs(values).ravel()
        peak = float(magnitudes.max(initial=0.0))
        if not np.isfinite(peak):
            raise CheckFailed(
                "an activation is NaN or infinite",
                why="the weights hold NaN or are far out of range",
                fix="Run the FP32 file first, with `retinart detect`",
            )
        nonzero = int(np.count_nonzero(magnitudes))
        self.zeros += magnitudes.size - nonzero
        if peak == 0.0:
            return
        if self.upper == 0.0:
            self.upper = peak
        while self.upper < peak:
            self.counts[: BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[BINS // 2 :] = 0
            self.upper *= 2
        index = np.minimum(magnitudes * np.float32(BINS / self.upper), BINS - 1).astype(np.int32)
        counted = np.bincount(index, minlength=BINS)
        counted[0] -= magnitudes.size - nonzero
        self.counts += counted
        self.peak = max(self.peak, peak)

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """(BINS,) middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (self.upper / BINS), np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "counts": self.counts.tolist(),
            "upper": self.upper,
            "peak": self.peak,
            "zeros": self.zeros,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it changes

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Histogram:
        """What `to_dict` gave.

        Raises:
            ValueError, TypeError, LookupError, ArithmeticError: it is something else.
        """
        histogram = cls()
        counts = data["counts"]
        if not isinstance(counts, list) or not all(type(count) is int for count in counts):
            raise ValueError("counts are not whole numbers")
        histogram.counts = np.array(counts, np.int64)
        histogram.upper, histogram.peak = float(data["upper"]), float(data["peak"])
        histogram.zeros = int(data["zeros"])
        if histogram.counts.shape != (BINS,) or (histogram.counts < 0).any():
            raise ValueError(f"a histogram does not have {BINS} counts from 0 on")
        if not 0 <= histogram.peak <= histogram.upper < np.inf or histogram.zeros < 0:
            raise ValueError(f"a histogram goes to {histogram.upper}, and its peak is "
                             f"{histogram.peak}")  # fmt: skip
        return histogram
