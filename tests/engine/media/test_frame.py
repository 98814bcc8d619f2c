"""Which frames a selection takes."""

from __future__ import annotations

import pytest

from retinart.engine.errors import BadInput
from retinart.engine.media.frame import Chooser
from retinart.engine.media.settings import Position, Selection


def _chosen(selection: Selection, frames: int, fps: float) -> list[int]:
    choose, taken = Chooser(selection), []
    for index in range(frames):
        what = choose(index, 1000 * index / fps)
        if what == "end":
            break
        if what == "take":
            taken.append(index)
    return taken


@pytest.mark.parametrize(
    ("text", "seconds", "frames"),
    [
        ("12.5", 12.5, None),
        ("3s", 3.0, None),
        (".5", 0.5, None),
        ("0", 0.0, None),
        ("300f", None, 300),
    ],
)
def test_positions(text: str, seconds: float | None, frames: int | None) -> None:
    assert Position.parse(text) == Position(seconds=seconds, frames=frames)


@pytest.mark.parametrize("text", ["", "f", "-1", "1.5f", "1:30", "nan", "1e3", "s"])
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(BadInput) as raised:
        Position.parse(text)
    assert str(raised.value) == (
        f"{text!r} is not a position in a video. "
        "Give seconds, such as 12.5, or frames, such as 300f."
    )


def test_start_and_end() -> None:
    seconds = Selection(start=Position(seconds=1.0), end=Position(seconds=2.0))
    assert _chosen(seconds, 100, 10) == list(range(10, 20))
    frames = Selection(start=Position(frames=3), end=Position(frames=5))
    assert _chosen(frames, 100, 10) == [3, 4]


def test_every() -> None:
    assert _chosen(Selection(every=4), 12, 10) == [0, 4, 8]
    assert _chosen(Selection(every=4, start=Position(frames=5)), 14, 10) == [5, 9, 13]


@pytest.mark.parametrize(
    ("fps", "most", "expected"), [(30, 20, 200), (30, 10, 100), (25, 30, 250), (60, 7, 70)]
)
def test_max_fps_is_met_on_average(fps: float, most: float, expected: int) -> None:
    assert abs(len(_chosen(Selection(max_fps=most), round(10 * fps), fps)) - expected) <= 1


def test_max_fps_makes_up_for_no_pause() -> None:
    """After ten seconds without frames there is no burst."""
    choose = Chooser(Selection(max_fps=2))
    times = [0, 100, 500, 10_000, 10_100, 10_200, 10_500]
    assert [choose(i, t) for i, t in enumerate(times)] == [
        "take",
        "skip",
        "take",
        "take",
        "skip",
        "skip",
        "take",
    ]


@pytest.mark.parametrize("more", [{"every": 0}, {"max_fps": 0.0}, {"max_fps": float("nan")}])
def test_numbers_that_make_no_sense(more: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=r"`every` is 0|`max_fps` is"):
        Selection(**more)  # type: ignore[arg-type]
