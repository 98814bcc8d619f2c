"""From a histogram to the magnitude that becomes 127, weighing clipping against rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retinart.calib.histogram import BINS, Histogram
from retinart.calib.settings import Method

LEVELS = 128  # magnitudes that a symmetric int8 has: 0 to 127
PERCENTILE = 99.99
TRIALS = 100  # thresholds that mse tries


def threshold(histogram: Histogram, method: Method) -> float:
    """The magnitude that becomes 127; larger ones are clipped. 0 if only zeros were seen."""
    if histogram.peak == 0.0:
        return 0.0
    rules: dict[Method, Callable[[Histogram], float]] = {
        "minmax": lambda h: h.peak,
        "percentile": percentile,
        "mse": mse,
        "entropy": entropy,
    }
    return min(rules[method](histogram), histogram.peak)


def percentile(histogram: Histogram, percent: float = PERCENTILE) -> float:
    """The magnitude below which this share of the nonzero values lies."""
    cumulative = np.cumsum(histogram.counts)
    wanted = cumulative[-1] * percent / 100
    index = int(np.searchsorted(cumulative, wanted))
    return (index + 1) * histogram.upper / BINS


def mse(histogram: Histogram) -> float:
    """The threshold that quantizes the histogram's values with the least mean squared error."""
    centers, weights = histogram.centers, histogram.counts
    trial = histogram.peak * np.arange(1, TRIALS + 1)[:, None] / TRIALS  # (T, 1)
    scale = trial / (LEVELS - 1)
    quantized = np.minimum(np.round(centers / scale), LEVELS - 1) * scale  # (T, BINS)
    errors = ((quantized - centers) ** 2 * weights).sum(axis=1)
    return float(trial[int(np.argmin(errors)), 0])


def entropy(histogram: Histogram) -> float:
    """The threshold that loses least information, by TensorRT's published rule (Migacz, GTC 2017).

    For every number i of bins from 128 on, P is the histogram's first i bins, with all values
    beyond them counted in the last. Q is the same i bins merged to 128 levels, with each level's
    count spread evenly over its bins that are not empty. The i with the smallest KL(P || Q) wins.
    """
    counts = histogram.counts.astype(np.float64)
    beyond = counts.sum() - np.cumsum(counts)
    best, best_bins = np.inf, BINS
    for bins in range(LEVELS, BINS + 1):
        inside = counts[:bins]
        reference = inside.copy()
        reference[-1] += beyond[bins - 1]
        divergence = _divergence(reference, _merged(inside))
        if divergence < best:
            best, best_bins = divergence, bins
    return best_bins * histogram.upper / BINS


def _merged(
    inside: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(i,) counts after merging i bins to LEVELS levels and spreading each level evenly again."""
    level = np.arange(len(inside)) * LEVELS // len(inside)
    full = inside > 0
    total = np.bincount(level, inside, LEVELS)
    members = np.bincount(level, full, LEVELS)
    spread = np.divide(total, members, out=np.zeros(LEVELS), where=members > 0)
    return np.asarray(np.where(full, spread[level], 0.0))


def _divergence(
    p: np.ndarray[tuple[int], np.dtype[np.float64]], q: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> float:
    """KL(P || Q) of two histograms; infinite if Q is empty."""
    if not q.sum():
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    some = p > 0
    if (q[some] == 0).any():
        # P's last bin counts what lies beyond, and may be empty in Q: as published, a small value
        q = np.maximum(q, 1e-10)
    return float((p[some] * np.log(p[some] / q[some])).sum())
