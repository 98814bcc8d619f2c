"""What a second model changes, how sure that is, and whether it may pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

_FAR = 100  # times as many pictures; a larger number would not help a user
FEWEST = 10  # pictures; resamples of fewer are too alike to tell how sure a change is

Verdict = Literal["pass", "fail", "undecided"]
Undecided = Literal["pass", "fail"]
UNDECIDED: tuple[Undecided, ...] = get_args(Undecided)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a figure changes from the first model to the second, in points.

    Attributes:
        value: on the pictures as they are; negative is a loss.
        low, high: its 95% interval, which always holds the value.
    """

    value: float
    low: float
    high: float

    def loss(self, undecided: Undecided) -> float:
        """The loss that a limit is compared with: the end of the interval that decides."""
        return -self.low if undecided == "fail" else -self.high

    def __str__(self) -> str:
        return f"{self.value:+.2f}, 95% interval {self.interval}"

    @property
    def interval(self) -> str:
        """The interval as text."""
        return f"{self.low:+.2f} to {self.high:+.2f}"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a gate says.

    Attributes:
        verdict: pass where the whole interval of the loss is within the limit, fail where the whole
            interval is beyond it, undecided otherwise.
        more: about how many more pictures would decide; None where it is decided, or where more
            than a hundred times as many would be needed.
        few: whether there are fewer pictures than FEWEST, so that no interval decides.
        possible: where it is undecided, what the interval holds, in words.
    """

    verdict: Verdict
    more: int | None = None
    few: bool = False
    possible: str = ""

    def passes(self, undecided: Undecided) -> bool:
        """Whether it passes, where `undecided` says what an undecided gate does."""
        return undecided == "pass" if self.verdict == "undecided" else self.verdict == "pass"

    def __str__(self) -> str:
        if self.verdict != "undecided":
            return self.verdict
        if self.few:
            return f"undecided, as fewer than {FEWEST} pictures decide nothing"
        more = (
            f"the measured loss is too near to the limit: even {_FAR} times as many pictures would "
            "not decide it"
        )
        if self.more is not None:
            more = f"about {self.more} more pictures would decide it"
        return f"undecided, as {self.possible}; {more}"


def judge(change: Change, max_drop: float, pictures: int) -> Judgement:
    """Whether a loss is within a limit.

    Args:
        change: of the figure.
        max_drop: points that it may lose.
        pictures: on how many it was measured.
    """
    if pictures < FEWEST:
        return Judgement(verdict="undecided", more=FEWEST - pictures, few=True)
    loss, low, high = -change.value, change.loss("pass"), change.loss("fail")
    if high <= max_drop:
        return Judgement(verdict="pass")
    if low > max_drop:
        return Judgement(verdict="fail")
    # The interval shrinks with the root of the number of pictures.
    margin = abs(max_drop - loss)
    half = high - loss if loss <= max_drop else loss - low
    other = f"a gain of {-low:.2f}" if low < 0 else f"a loss of {low:.2f}"
    possible = f"{pictures} pictures allow anything from {other} to a loss of {high:.2f}"
    more = None
    if margin * math.sqrt(_FAR) > half:
        more = max(1, math.ceil(pictures * ((half / margin) ** 2 - 1)))
    return Judgement(verdict="undecided", more=more, possible=possible)


def worst_of(
    changes: Mapping[str, Change], max_drop: float, pictures: int
) -> tuple[str, Judgement]:
    """The class that decides a gate on every class: one that fails, then one that is undecided.

    Args:
        changes: by class, at least one.
        max_drop: points that each may lose.
        pictures: on how many they were measured.
    """
    order: dict[Verdict, int] = {"fail": 0, "undecided": 1, "pass": 2}
    judged = {name: judge(change, max_drop, pictures) for name, change in changes.items()}
    worst = min(judged, key=lambda name: (order[judged[name].verdict], changes[name].value))
    return worst, judged[worst]
