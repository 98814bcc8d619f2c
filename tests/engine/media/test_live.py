"""A live source by a capture that does as it is told: what it keeps, counts and says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from retinart.engine.media.live import LiveSource
from retinart.engine.media.settings import FOREVER, LiveSettings, Position, Selection

WAIT = 60.0
PICTURE = np.zeros((4, 6, 3), np.uint8)


class Camera:
    """Gives what each connection has: pictures, None for a broken one, an event to wait for."""

    def __init__(self, *connections: Sequence[Any] | None) -> None:
        self._connections, self.released = list(connections), 0

    def __call__(self) -> Camera:
        given = self._connections.pop(0) if self._connections else None
        self._opened, self._left = given is not None, list(given or [])
        return self

    def isOpened(self) -> bool:
        return self._opened

    def grab(self) -> bool:
        while self._left and isinstance(self._left[0], threading.Event):
            self._left.pop(0).wait(WAIT)
        return bool(self._left)

    def retrieve(self) -> tuple[bool, Any]:
        image = self._left.pop(0)
        return image is not None, image

    def release(self) -> None:
        self.released += 1


Make = Callable[..., LiveSource]


@pytest.fixture
def make() -> Iterator[Make]:
    sources = []

    def one(camera: Camera, **more: Any) -> LiveSource:
        settings = {"max_retries": 0, "backoff": 0.0, "timeout": 10.0}
        settings |= {k: more.pop(k) for k in list(settings) if k in more}
        source = LiveSource(
            "camera",
            source_index=0,
            connect=camera,
            selection=more.pop("selection", Selection()),
            settings=LiveSettings(**settings),  # type: ignore[arg-type]
            wake=more.pop("wake", threading.Event()),
            say=more.pop("say", lambda text: None),
            time_stage=lambda stage, seconds: None,
        )
        sources.append(source)
        return source

    yield one
    for source in sources:
        source.close()
    assert not _receiving()


def _receiving() -> list[str]:
    """The threads that still receive."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("retinart-live-")]


def _finish(source: LiveSource) -> None:
    give_up = time.monotonic() + WAIT
    while not source.counts.ended:
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_the_newest_frame_is_kept_and_older_ones_are_counted(make: Make) -> None:
    pictures = [np.full((4, 6, 3), i, np.uint8) for i in range(7)]
    source = make(Camera(pictures))
    _finish(source)
    assert not source.ended  # its last frame can still be taken
    frame = source.take()
    assert frame is not None and frame.index == 6 and frame.image[0, 0, 0] == 6
    assert source.take() is None
    assert getattr(source, "ended")  # noqa: B009  mypy remembers what it was above
    c = source.counts
    assert (c.read, c.taken, c.dropped, c.skipped, c.broken) == (7, 1, 6, 0, 0)


def test_a_frame_that_is_not_taken_is_dropped_at_the_end(make: Make) -> None:
    source = make(Camera([PICTURE] * 3))
    _finish(source)
    source.close()
    assert (source.counts.read, source.counts.taken, source.counts.dropped) == (3, 0, 3)


def test_every_frame_that_is_taken_in_time_is_kept(make: Make) -> None:
    gates, wake = [threading.Event() for _ in range(4)], threading.Event()
    source = make(Camera([x for gate in gates for x in (gate, PICTURE)]), wake=wake)
    for index, gate in enumerate(gates):
        gate.set()
        while (frame := source.take()) is None:
            assert wake.wait(WAIT)
            wake.clear()
        assert frame.index == index and frame.time_ms is not None and frame.time_ms >= 0
    _finish(source)
    assert source.counts.dropped == 0 and source.counts.taken == 4


def test_it_connects_again_and_gives_up(make: Make) -> None:
    said: list[str] = []
    camera = Camera(None, None, [PICTURE, PICTURE], None, None, None)
    source = make(camera, max_retries=2, say=said.append)
    _finish(source)
    assert said == [
        "camera: cannot be opened; retry 1 of 2 in 0.0 s",
        "camera: cannot be opened; retry 2 of 2 in 0.0 s",
        "camera: the stream ended or broke off; retry 1 of 2 in 0.0 s",  # a frame came: from 1
        "camera: cannot be opened; retry 2 of 2 in 0.0 s",
        "camera: cannot be opened; given up after 2 retries",
    ]
    c = source.counts
    assert (c.ended, c.why, c.read, c.reconnects) == ("lost", "cannot be opened", 2, 4)
    assert camera.released == 5


def test_attempts_wait_twice_as_long_each_time(make: Make) -> None:
    settings = LiveSettings(backoff=0.5)
    waits = [settings.wait_before(retry) for retry in range(1, 10)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30] and settings.wait_before(10**6) == 30
    said: list[str] = []
    start = time.monotonic()
    _finish(make(Camera(), max_retries=2, backoff=0.1, say=said.append))
    assert time.monotonic() - start >= 0.3
    assert [text.rpartition(" in ")[2] for text in said[:2]] == ["0.1 s", "0.2 s"]


def test_a_stall_is_told_from_an_end(make: Make) -> None:
    said: list[str] = []

    class Stalled(Camera):
        def grab(self) -> bool:
            threading.Event().wait(0.02)
            return False

    _finish(make(Stalled([PICTURE]), timeout=0.01, say=said.append))
    assert said == ["camera: no frame for 0.01 s; given up after 0 retries"]


def test_a_driver_that_raises_is_a_break_like_others(make: Make) -> None:
    """Otherwise its thread would die, and the reader of the source would wait for ever."""
    said: list[str] = []

    class Faulty(Camera):
        def retrieve(self) -> tuple[bool, Any]:
            raise RuntimeError("no such format")

    source = make(Faulty([PICTURE], [PICTURE]), max_retries=1, say=said.append)
    _finish(source)
    assert source.counts.ended == "lost" and source.counts.why == "RuntimeError: no such format"
    assert said == [
        "camera: RuntimeError: no such format; retry 1 of 1 in 0.0 s",
        "camera: RuntimeError: no such format; given up after 1 retry",
    ]


def test_broken_frames_are_counted_and_passed_over(make: Make) -> None:
    grey, empty = np.zeros((4, 6), np.uint8), np.zeros((0, 6, 3), np.uint8)
    source = make(Camera([PICTURE, None, grey, empty, np.ones((8, 9, 3), np.uint8)]))
    _finish(source)
    frame = source.take()
    assert frame is not None and frame.image.shape == (8, 9, 3) and frame.index == 4
    c = source.counts
    assert (c.read, c.broken, c.dropped, c.taken) == (5, 3, 1, 1)


def test_a_selection(make: Make) -> None:
    selection = Selection(every=3, start=Position(frames=2), end=Position(frames=9))
    source = make(Camera([PICTURE] * 50), selection=selection)
    _finish(source)
    frame = source.take()
    assert frame is not None and frame.index == 8  # 2, 5 and 8 are chosen
    c = source.counts
    assert (c.ended, c.read, c.skipped, c.dropped) == ("end", 9, 6, 2)


def test_closing_does_not_wait_for_the_next_attempt(make: Make) -> None:
    said = threading.Event()
    source = make(Camera(), max_retries=FOREVER, backoff=30, say=lambda text: said.set())
    assert said.wait(WAIT)
    source.close()
    assert not _receiving() and source.counts.ended == "stopped"
