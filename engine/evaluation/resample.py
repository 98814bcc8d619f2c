"""AP of pictures drawn again from the evaluated ones, from matches that were made once.

Shapes: R resamples, N pictures, D detections of a class, T IoU thresholds, E events of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SIZES = ("", "_small", "_medium", "_large")  # as pycocotools orders its ranges of sizes
IOU = np.linspace(0.5, 0.95, 10)  # as pycocotools does
_RECALL = np.linspace(0, 1, 101)
_AT_ONCE = 500_000  # numbers in one array, so that memory does not grow with the pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """Where the curve of one IoU threshold rises or differs from the counted detections.

    Attributes:
        image: (E,) picture of each event, the highest score first.
        before: (E,) number of the curve's counted detections up to and with the event.
        hit: (E,) 1 where the detection is a hit, otherwise 0.
        score: (E,) of the detection.
        more: (E,) 1 or -1 where the detection counts at this threshold and not otherwise, or the
            other way round; 0 elsewhere.
    """

    image: Ints
    before: Ints
    hit: Ints
    score: Floats
    more: Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """The detections of a class within a range of sizes.

    Attributes:
        counted: (D,) picture of each detection that counts where it is unmatched.
        score: (D,) of these detections, the highest first.
        events: one record for each IoU threshold.
        objects: the picture of each object.
    """

    counted: Ints
    score: Floats
    events: tuple[Events, ...]
    objects: Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Which detections of a model match objects, for every class, range of sizes and threshold.

    Attributes:
        images: the number of each of the N pictures.
        classes: a name for each class.
        curves: for each class one record for each of `SIZES`.
    """

    images: tuple[int, ...]
    classes: tuple[str, ...]
    curves: tuple[tuple[Curves, ...], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """Figures of R resamples, 0 to 1; NaN where a resample has no object.

    Attributes:
        figures: (R,) by name: AP, AP50, AP75, AP_small, AP_medium and AP_large.
        per_class: (R,) AP by class.
        recall: (R,) by class: the largest recall at the wanted precision, at an IoU of 0.5.
    """

    figures: dict[str, Floats]
    per_class: dict[str, Floats]
    recall: dict[str, Floats]


def curves_of(image: Ints, score: Floats, matched: Bools, ignored: Bools, objects: Ints) -> Curves:
    """The curves of one class and range of sizes.

    Args:
        image: (D,) picture of each detection, the highest score first.
        score: (D,) its score.
        matched: (T, D) whether it has an object.
        ignored: (T, D) whether it counts neither as hit nor as miss.
        objects: the picture of each object that counts.
    """
    # Without a match a detection counts or not by its own size, at every threshold alike.
    alone = (~matched & ~ignored).any(axis=0)
    hits = matched & ~ignored
    before = np.cumsum(alone, dtype=np.int32)
    events = []
    for hit, more in zip(hits, (~ignored).astype(np.int32) - alone, strict=True):
        at = np.flatnonzero(hit | (more != 0))
        events.append(
            Events(
                image=image[at],
                before=before[at],
                hit=hit[at].astype(np.int32),
                score=score[at],
                more=more[at],
            )
        )
    return Curves(counted=image[alone], score=score[alone], events=tuple(events), objects=objects)


def draw_pictures(images: int, resamples: int, seed: int) -> Ints:
    """(R, N) how often each picture is in each resample: N pictures, drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, images, images) for _ in range(resamples))
    return np.stack([np.bincount(one, minlength=images) for one in drawn]).astype(np.int32)


def resampled(matches: Matches, weights: Ints, *, precision: float | None = None) -> Figures:
    """The figures of every resample, equal to evaluating its pictures.

    Args:
        matches: of a model.
        weights: (R, N) how often each picture is in each resample.
        precision: 0 to 1, for `Figures.recall`; None leaves it empty.
    """
    # sizes x classes x R x T
    ap = np.stack(
        [
            np.stack([_average_precision(parts[k], weights) for parts in matches.curves])
            for k in range(len(SIZES))
        ]
    )
    figures = {f"AP{size}": _mean(ap[k], (0, 2)) for k, size in enumerate(SIZES)}
    for at, name in ((0, "AP50"), (5, "AP75")):
        figures[name] = _mean(ap[0, :, :, at], (0,))
    per_class = {name: _mean(ap[0, k], (1,)) for k, name in enumerate(matches.classes)}
    recall = {}
    if precision is not None:
        recall = {
            name: _recall_at(parts[0], weights, precision)
            for name, parts in zip(matches.classes, matches.curves, strict=True)
        }
    return Figures(figures=figures, per_class=per_class, recall=recall)


def _average_precision(curves: Curves, weights: Ints) -> Floats:
    """(R, T) AP as pycocotools has it: precision at 101 recalls, each the best to its right."""
    found = np.zeros((len(weights), len(IOU)))
    objects = weights.take(curves.objects, axis=1).sum(axis=1)
    for part in _parts(curves, len(weights)):
        of_part = np.maximum(objects[part, None], 1)
        counted = _counted(curves, weights[part])
        for k, events in enumerate(curves.events):
            if len(events.image):
                hits, precision = _curve(events, weights[part], counted)
                best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
                steps = _recalls_up_to(hits / of_part)
                steps[:, 1:] -= steps[:, :-1].copy()
                found[part, k] = np.einsum("re,re->r", best, steps) / len(_RECALL)
    found[objects == 0] = np.nan
    return found


def _recall_at(curves: Curves, weights: Ints, least: float) -> Floats:
    """(R,) the largest recall whose precision is at least this, at an IoU of 0.5."""
    found = np.zeros(len(weights))
    events, objects = curves.events[0], weights.take(curves.objects, axis=1).sum(axis=1)
    if len(events.image):
        for part in _parts(curves, len(weights)):
            hits, precision = _curve(events, weights[part], _counted(curves, weights[part]))
            found[part] = np.where(precision >= least - 1e-12, hits, 0).max(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(found / objects)


def _parts(curves: Curves, resamples: int) -> Sequence[slice]:
    """The resamples in parts whose arrays are small."""
    longest = max(len(curves.counted), *(len(e.image) for e in curves.events), 1)
    step = max(1, _AT_ONCE // longest)
    return [slice(k, k + step) for k in range(0, resamples, step)]


def _counted(curves: Curves, weights: Ints) -> Ints:
    """(R, D + 1) how many detections count up to each, 0 at first."""
    counted = np.zeros((len(weights), len(curves.counted) + 1), np.int32)
    np.cumsum(weights.take(curves.counted, axis=1), axis=1, out=counted[:, 1:])
    return counted


def _curve(events: Events, weights: Ints, counted: Ints) -> tuple[Ints, Floats]:
    """(R, E) hits and precision at each event."""
    drawn = weights.take(events.image, axis=1)
    total = counted.take(events.before, axis=1)
    if events.more.any():
        total += np.cumsum(drawn * events.more, axis=1, dtype=np.int32)
    hits = drawn if events.hit.all() else drawn * events.hit
    hits = np.cumsum(hits, axis=1, dtype=np.int32)
    return hits, hits / (total + np.spacing(1))


def _recalls_up_to(recall: Floats) -> Floats:
    """How many of the 101 recalls are at most this one."""
    # A recall is a quotient of whole numbers: it is a hundredth, or far from all of them.
    near = (100 * recall + 1e-9).astype(np.intp)
    return np.asarray(near + (_RECALL.take(near) <= recall), np.float64)


def _mean(values: Floats, axis: tuple[int, ...]) -> Floats:
    """The mean of what exists, NaN where nothing does."""
    exists = ~np.isnan(values)
    count = exists.sum(axis=axis)
    total = np.where(exists, values, 0).sum(axis=axis)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))
