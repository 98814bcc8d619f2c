"""INT8 weights that change a convolution's outputs least.

With weights w that become v, the squared error at the outputs is v' G v - 2 t' v and a constant,
where G and t are the sums of `Moments`. AdaRound (Nagel et al. 2020) rounds each weight up or down
so that this is least, layer by layer. The paper follows gradients of a relaxation. Here one weight
after the other takes the better side, until few move: coordinate descent, as QuantEase does (Behdin
et al. 2023). It needs no step size, and each image once.

G  groups of a convolution     O  its outputs in a group     K  weights of an output
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from retinart.calib.moments import Moments
from retinart.calib.numbers import INT8, Floats, Numbers
from retinart.calib.quantize import Encoded, quantize_weights
from retinart.calib.settings import Rounding
from retinart.engine.model.steps import half_step
from retinart.engine.runtime.saturation import LARGEST

SHARES = tuple(0.5 + 0.025 * i for i in range(21))  # of the largest weight, tried as the range
DAMPING = 0.01  # of the mean of G's diagonal: what leaving the float weight costs
SWEEPS = 8  # at most
FEW = 1e-3  # share of weights that move in a last sweep
_BLOCK = 64  # weights whose errors are kept up to date one by one


@dataclass(frozen=True, kw_only=True, eq=False)
class Rounded:
    """A weight in INT8 or FP8.

    Attributes:
        encoded: (O, ...) int8 or float8.
        scales: (O,) float32.
        shifts: what is added to the bias (O,) of each convolution that reads it, by node, so that
            its outputs keep their mean.
    """

    encoded: Encoded
    scales: Floats
    shifts: dict[str, Floats] = field(default_factory=dict)


def round_weight(
    moments: Moments,
    shape: tuple[int, ...],
    rounding: Rounding,
    bits: int,
    *,
    shift: bool,
    numbers: Numbers = INT8,
) -> Rounded:
    """Round a weight.

    Args:
        moments: of all that reads it. It is used up.
        shape: of the weight, (O, ...).
        rounding: how.
        bits: 8 or 7.
        shift: correct biases.
        numbers: what is rounded to; FP8 rounds to nearest, with 8 bits.
    """
    rows = moments.rows
    if rounding == "nearest":
        encoded, scales = quantize_weights(rows.reshape(shape), bits, numbers)
        steps, whole = scales.reshape(rows.shape[:2]), encoded.reshape(rows.shape)
    else:
        largest = int(INT8.largest) if bits == 8 else LARGEST
        gram, cross = _damped(*moments.products(), rows)
        steps = best_steps(gram, cross, rows, largest)
        found = _nearest(rows, steps, largest)
        if rounding == "learned":
            found = descend(gram, cross, rows, steps, largest)
        whole = found.astype(np.int8)
    shifts = {}
    if shift:
        for node, means in moments.means.items():
            inputs, outputs = means.inputs / means.count, means.outputs / means.count
            after = ((whole.astype(np.float32) * steps[..., None]) @ inputs[..., None])[..., 0]
            shifts[node] = (outputs - after).ravel().astype(np.float32)
    return Rounded(encoded=whole.reshape(shape), scales=steps.ravel(), shifts=shifts)


def best_steps(gram: Floats, cross: Floats, rows: Floats, largest: int) -> Floats:
    """(G, O) for each output the step with the least error when weights round to nearest."""
    peaks: Floats = np.abs(rows).max(axis=2)
    best: Floats = np.ones_like(peaks)
    least: Floats = np.full_like(peaks, np.inf)
    for share in SHARES:
        steps = _half_steps(peaks * np.float32(share / largest))
        error = error_of(gram, cross, _nearest(rows, steps, largest) * steps[..., None])
        better = error < least
        best, least = np.where(better, steps, best), np.where(better, error, least)
    return best


def descend(gram: Floats, cross: Floats, rows: Floats, steps: Floats, largest: int) -> Floats:
    """(G, O, K) whole numbers, each the weight's next one below or above, of little error."""
    low = np.clip(np.floor(rows / steps[..., None]), -largest, largest)
    found = _nearest(rows, steps, largest)
    curve = np.maximum(np.diagonal(gram, axis1=1, axis2=2), np.finfo(np.float32).tiny)  # (G, K)
    for _ in range(SWEEPS):
        moved = 0
        for start in range(0, rows.shape[2], _BLOCK):
            block = slice(start, start + _BLOCK)
            slope = (found @ gram[:, :, block]) * steps[..., None] - cross[:, :, block]
            after = _descend_block(
                _first(found[:, :, block]),
                _first(low[:, :, block]),
                _first(slope),
                gram[:, block, block].transpose(1, 0, 2),
                np.reciprocal(_first(curve[:, None, block]) * steps),
                steps,
                largest,
            )
            moved += int((after != found[:, :, block]).sum())
            found[:, :, block] = after
        if moved <= FEW * rows.size:
            break
    return found


def _descend_block(
    found: Floats, low: Floats, slope: Floats, gram: Floats, reach: Floats, steps: Floats, top: int
) -> Floats:
    """One sweep over the B weights of a block; all but `gram` (B, G, B) are (B, G, O).

    Returns:
        (G, O, B) the weights.
    """
    high = np.minimum(low + 1, top)
    for k in range(len(found)):
        after = np.rint(found[k] - slope[k] * reach[k])
        np.clip(after, low[k], high[k], out=after)
        change = (after - found[k]) * steps
        if change.any():
            found[k] = after
            slope[k + 1 :] += gram[k, :, k + 1 :].T[:, :, None] * change
    return found.transpose(1, 2, 0)


def _first(values: Floats) -> Floats:
    """(G, O, B) as (B, G, O), without gaps."""
    return np.ascontiguousarray(np.moveaxis(values, 2, 0))


def error_of(gram: Floats, cross: Floats, rows: Floats) -> Floats:
    """(G, O) the squared error of weights at the outputs, but for a constant."""
    error: Floats = ((rows @ gram - 2 * cross) * rows).sum(axis=2)
    return error


def _damped(gram: Floats, cross: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """G and t, changed in place so that inputs that hardly vary do not move their weights."""
    index = np.arange(gram.shape[1])
    cost = DAMPING * gram[:, index, index].mean(axis=1, keepdims=True)  # (G, 1)
    gram[:, index, index] += cost
    cross += cost[..., None] * rows
    return gram, cross


def _nearest(rows: Floats, steps: Floats, largest: int) -> Floats:
    return np.clip(np.round(rows / steps[..., None]), -largest, largest)


def _half_steps(steps: Floats) -> Floats:
    found = [half_step(float(step)) for step in steps.ravel()]
    return np.array(found, np.float32).reshape(steps.shape)
