"""The gate: its intervals cover a known difference, and it says what it cannot know."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pytest

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.gate import FEWEST, Change, Judgement, judge, worst_of
from retinart.engine.evaluation.paired import paired_changes
from retinart.engine.evaluation.resample import IOU, Matches, curves_of, draw_pictures, resampled

OBJECTS, FALSE = 4, 6  # in each picture


def made_matches(pictures: int, seed: int, *, shift: float) -> Matches:
    """A made-up model on made-up pictures of one class, drawn without end from one source.

    Two models of one seed see the same objects. `shift` moves every overlap of the second one down.
    """
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.1, (pictures, 1))  # a picture is hard for both models
    overlap = np.clip(rng.normal(0.75, 0.12, (pictures, OBJECTS)) + hard, 0, 1)
    own = np.random.default_rng((seed, round(1e6 * shift)))
    overlap = overlap - shift + own.normal(0, 0.03, overlap.shape)
    scores = np.concatenate(
        [rng.beta(4, 2, (pictures, OBJECTS)), rng.beta(2, 4, (pictures, FALSE))], axis=1
    )
    image = np.repeat(np.arange(pictures, dtype=np.int32), OBJECTS + FALSE)
    best = np.concatenate([overlap, np.zeros((pictures, FALSE))], axis=1).ravel()
    order = np.argsort(-scores.ravel(), kind="stable")
    matched = best[order] >= IOU[:, None]
    curves = curves_of(
        image[order],
        scores.ravel()[order],
        matched,
        np.zeros_like(matched),
        np.repeat(np.arange(pictures, dtype=np.int32), OBJECTS),
    )
    none = curves_of(image[:0], scores[0, :0], matched[:, :0], matched[:, :0], image[:0])
    return Matches(
        images=tuple(range(pictures)), classes=("thing",), curves=((curves, none, none, none),)
    )


def _ap(matches: Matches) -> float:
    once: npt.NDArray[np.int32] = np.ones((1, len(matches.images)), np.int32)
    return float(resampled(matches, once).figures["AP"][0])


@functools.cache
def _true_change() -> float:
    """On so many pictures that its own error is a hundredth of the intervals."""
    first, second = (_ap(made_matches(30_000, 10**6, shift=shift)) for shift in (0, 0.02))
    return 100 * (second - first)


def _covered(trials: int, pictures: int) -> tuple[float, float]:
    """The share of intervals that hold the true change, and their mean width."""
    truth = _true_change()
    assert -5 < truth < -2
    hits, widths = 0, []
    for seed in range(trials):
        pair = (made_matches(pictures, seed, shift=shift) for shift in (0, 0.02))
        change = paired_changes(*pair, resamples=300, seed=seed).figures["AP"]
        hits += change.low <= truth <= change.high
        widths.append(change.high - change.low)
    return hits / trials, float(np.mean(widths))


def test_the_interval_covers_the_true_change() -> None:
    """95% of 60 with an error of 2.8%: below 87% it would be another interval."""
    share, _ = _covered(60, 60)
    assert share >= 0.87


@pytest.mark.slow
def test_the_interval_covers_the_true_change_in_many_trials() -> None:
    for pictures in (40, 150):
        share, _ = _covered(600, pictures)
        assert 0.92 <= share <= 0.98, pictures


def test_more_pictures_give_a_narrower_interval() -> None:
    """The number of pictures that would decide rests on the root of their number."""
    widths = [_covered(4, pictures)[1] for pictures in (40, 640)]
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_pairs_are_paired() -> None:
    """The same pictures for both: what both find hard cancels out."""
    first, second = (made_matches(80, 3, shift=shift) for shift in (0, 0.02))
    other = made_matches(80, 4, shift=0.02)
    paired = paired_changes(first, second).figures["AP"]
    apart = paired_changes(first, other).figures["AP"]
    assert apart.high - apart.low > 1.5 * (paired.high - paired.low)
    same = paired_changes(first, first).figures["AP"]
    assert same == Change(value=0, low=0, high=0)
    assert paired_changes(first, second).figures["AP"] == paired, "a seed gives one answer"
    with pytest.raises(BadInput, match="one on 80 and the other on 79"):
        paired_changes(first, made_matches(79, 3, shift=0))


def test_pictures_are_drawn_with_replacement() -> None:
    drawn = draw_pictures(50, 400, 0)
    assert (drawn.sum(axis=1) == 50).all() and drawn.max() > 3
    assert drawn.mean(axis=0) == pytest.approx(np.ones(50), abs=0.25)


@pytest.mark.parametrize(
    ("value", "low", "high", "limit", "expected"),
    [
        (-0.1, -0.2, 0.1, 0.3, Judgement(verdict="pass")),
        (0.0, 0.0, 0.0, 0.0, Judgement(verdict="pass")),
        (-0.1, -0.3, 0.1, 0.3, Judgement(verdict="pass")),
        (-0.5, -0.6, -0.4, 0.3, Judgement(verdict="fail")),
        (0.5, 0.4, 0.6, 0.0, Judgement(verdict="pass")),
        # The interval's half has to shrink from 0.4 to 0.2: four times as many pictures.
        (-0.1, -0.5, 0.1, 0.3, Judgement(verdict="undecided", more=300)),
        (-0.5, -0.7, -0.1, 0.3, Judgement(verdict="undecided", more=300)),
        (-0.3, -0.5, 0.1, 0.3, Judgement(verdict="undecided")),
    ],
)
def test_what_the_gate_says(
    value: float, low: float, high: float, limit: float, expected: Judgement
) -> None:
    change = Change(value=value, low=low, high=high)
    found = judge(change, limit, 100)
    assert found.verdict == expected.verdict
    assert found.more == (None if expected.more is None else pytest.approx(expected.more, abs=1))
    for undecided in ("pass", "fail"):
        assert found.passes(undecided) == (change.loss(undecided) <= limit)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((0.07, -0.36, 0.63), "a gain of 0.63 to a loss of 0.36; about 36 more pictures"),
        ((-0.5, -0.7, -0.1), "a loss of 0.10 to a loss of 0.70; about 300 more pictures"),
        ((-0.31, -0.7, 0.1), "a gain of 0.10 to a loss of 0.70; the measured loss is too near"),
    ],
)
def test_why_it_is_undecided(change: tuple[float, float, float], words: str) -> None:
    """Seen: "as a gain of up to 2.50 is possible", given as the reason to doubt a loss."""
    value, low, high = change
    said = str(judge(Change(value=value, low=low, high=high), 0.3, 100))
    assert said.startswith(f"undecided, as 100 pictures allow anything from {words}")


@pytest.mark.parametrize("value", [0.0, -50.0])
def test_few_pictures_decide_nothing(value: float) -> None:
    """Seen: one picture, whose resamples are all the same, passed."""
    change = Change(value=value, low=value, high=value)
    found = judge(change, 1.0, FEWEST - 1)
    assert found.verdict == "undecided" and found.more == 1
    assert "fewer than 10 pictures decide nothing" in str(found)
    assert judge(change, 1.0, FEWEST).verdict != "undecided"


def test_the_worst_class_decides() -> None:
    lost = Change(value=-3, low=-4, high=-2)
    unsure = Change(value=-5, low=-30, high=2)
    fine = Change(value=1, low=0, high=2)
    assert worst_of({"a": fine, "b": unsure, "c": lost}, 1, 90)[0] == "c"
    assert worst_of({"a": fine, "b": unsure}, 1, 90)[0] == "b"
    name, judgement = worst_of({"a": fine, "b": fine}, 1, 90)
    assert (name, judgement.verdict) == ("a", "pass")
