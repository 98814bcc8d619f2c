"""The pipeline of threads: order, bounds, and how it ends. No test waits for a time to pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from retinart.engine.pipeline import Channel, Ended, Pipeline

WAIT = 20.0  # seconds after which a test that hangs gives up


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("retinart-")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not _threads()


def test_every_item_in_order() -> None:
    with (
        Pipeline("read", range(500))
        .then("a", lambda x: x + 1)
        .then("b", lambda x: (x, 2 * x)) as pipeline
    ):
        assert list(pipeline) == [(x + 1, 2 * x + 2) for x in range(500)]
        assert {name: q.puts for name, q in pipeline.queues.items()} == dict.fromkeys("ab", 500) | {
            "": 500
        }


@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_no_more_waits_than_the_capacity(capacity: int) -> None:
    taken, go = [], threading.Semaphore(0)

    def items() -> Iterator[int]:
        for i in range(40):
            taken.append(i)
            yield i

    def slow(x: int) -> int:
        go.acquire(timeout=WAIT)
        return x

    with Pipeline("read", items(), capacity=capacity).then("slow", slow, capacity=1) as pipeline:
        for i in range(40):
            go.release()
            assert pipeline.next(WAIT) == i
            # beyond i: what waits before and in `slow`, and one that is on its way
            assert len(taken) <= i + 1 + capacity + 2
        assert pipeline.queues["slow"].depth_max <= max(1, capacity)


def test_without_capacity_an_item_is_made_when_it_is_wanted() -> None:
    """What a live source needs: the frame is chosen when the model is free, not before."""
    made, asked, go = [], threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        for i in range(3):
            made.append(i)
            yield i

    def work(x: int) -> int:
        asked.set()
        assert go.wait(WAIT)
        return x

    with (
        Pipeline("read", items(), capacity=0)
        .then("resize", lambda x: x, capacity=0)
        .then("infer", work) as pipeline
    ):
        assert asked.wait(WAIT)
        assert made == [0]  # the thread that makes them had all the time to go on
        assert not pipeline.queues["infer"] and not pipeline.queues["resize"]
        go.set()
        assert list(pipeline) == [0, 1, 2]


@pytest.mark.parametrize("place", ["read", "a", "b"])
def test_an_exception_comes_after_what_has_passed(place: str) -> None:
    def items() -> Iterator[int]:
        for i in range(1000):
            if place == "read" and i == 5:
                raise OSError("read")
            yield i

    def work(name: str) -> Any:
        def run(x: int) -> int:
            if place == name and x == 5:
                raise OSError(name)
            return x

        return run

    results = []
    with (  # noqa: PT012
        pytest.raises(OSError, match=place),
        Pipeline("read", items()).then("a", work("a")).then("b", work("b")) as pipeline,
    ):
        for result in pipeline:
            results.append(result)
    assert results == [0, 1, 2, 3, 4]


def test_stop_drops_what_waits_before_a_stage_and_finishes_the_rest() -> None:
    begun, go = threading.Event(), threading.Event()

    def infer(x: int) -> int:
        begun.set()
        assert go.wait(WAIT)
        return x

    pipeline = Pipeline("read", iter(int, 1))  # endless
    pipeline.then("resize", lambda x: x).then("infer", infer).then("write", lambda x: x)
    with pipeline:
        assert begun.wait(WAIT)
        pipeline.stop(before="infer")
        go.set()
        assert list(pipeline) == [0]


def test_leaving_early_ends_the_threads() -> None:
    with Pipeline("read", iter(int, 1)).then("a", lambda x: x) as pipeline:
        assert pipeline.next(WAIT) == 0


def test_an_interrupt_while_waiting_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def work(x: int) -> int:
        assert go.wait(WAIT)
        return x

    with Pipeline("read", range(3)).then("a", work) as pipeline:
        with pytest.raises(TimeoutError):
            pipeline.next(0.01)
        go.set()
        assert list(pipeline) == [0, 1, 2]


def test_a_channel() -> None:
    channel: Channel[int] = Channel(2)
    assert channel.wanted() and channel.put(1) and channel.put(2) and len(channel) == 2
    assert channel.get() == 1
    channel.end()
    assert channel.get() == 2
    with pytest.raises(Ended):
        channel.get()
    with pytest.raises(TimeoutError):
        Channel[int](1).get(0.001)
    channel.abort()
    assert not channel.put(3) and not channel.wanted() and len(channel) == 0
