"""Results that are sent on: their order, what is lost and counted, and that a job never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from retinart import BadInput
from retinart.engine.sinks import sink as module
from retinart.engine.sinks.open_sink import open_transport
from retinart.engine.sinks.sink import Line, Sink, SinkFailed

WAIT = 60.0


class _Other:
    """Another side that answers as it is told."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.answers: list[Callable[[Sequence[Line]], None]] = []
        self.open, self.closed = threading.Event(), False
        self.open.set()

    def send(self, lines: Sequence[Line]) -> None:
        self.open.wait(WAIT)
        if self.answers:
            self.answers.pop(0)(lines)
        self.got += [line.text for line in lines]

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.02)


def _eventually(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_lines_arrive_in_their_order_and_the_end_waits_for_them() -> None:
    other, said = _Other(), list[str]()
    sink = Sink("x", other, said.append)
    for number in range(250):
        sink.put(Line(str(number)))
    sink.close()
    assert other.got == [str(number) for number in range(250)] and other.closed and not said
    assert (sink.counts.sent, sink.counts.dropped, sink.counts.waiting) == (250, 0, 0)


def test_a_job_never_waits_and_the_newest_lines_are_kept() -> None:
    other = _Other()
    other.open.clear()
    sink = Sink("x", other, print, places=10)
    sink.put(Line("first"))
    _eventually(lambda: sink.counts.waiting == 1 and not sink._lines)  # it is being sent
    for number in range(100):
        sink.put(Line(str(number)))
    assert (sink.counts.waiting, sink.counts.dropped) == (11, 90)
    other.open.set()
    sink.close()
    assert other.got == ["first", *map(str, range(90, 100))]
    assert (sink.counts.sent, sink.counts.dropped) == (11, 90)


def test_what_was_not_confirmed_is_sent_again() -> None:
    other, said = _Other(), list[str]()

    def half(lines: Sequence[Line]) -> None:
        other.got.append(lines[0].text)
        raise SinkFailed("no route", left=lines[1:])

    other.answers = [half, half]
    other.open.clear()
    sink = Sink("http://other/", other, said.append)
    for line in "abcd":
        sink.put(Line(line))
    other.open.set()
    _eventually(lambda: sink.counts.sent == 4)
    sink.close()
    assert other.got == list("abcd")
    assert (sink.counts.failures, sink.counts.dropped) == (2, 0)
    assert said == [
        "http://other/: no route; results wait, 1,000 at most",
        "http://other/: it takes results again",
    ]


def test_a_send_that_fails_after_the_end_counts_once() -> None:
    """`sent` became less than zero."""
    other = _Other()
    other.open.clear()

    def fail(lines: Sequence[Line]) -> None:
        raise SinkFailed("late", left=lines[1:], refused=1)

    other.answers = [fail]
    sink = Sink("x", other, print)
    for number in range(3):
        sink.put(Line(str(number)))
    _eventually(lambda: bool(sink._sending))
    sink.close(0)
    before = sink.counts
    other.open.set()
    sink._thread.join(WAIT)
    assert sink.counts == before and (before.sent, before.dropped, before.waiting) == (0, 3, 0)


def test_refused_lines_are_given_up() -> None:
    other = _Other()

    def refuse(lines: Sequence[Line]) -> None:
        raise SinkFailed("it answered 400", refused=len(lines))

    other.answers = [refuse]
    sink = Sink("x", other, print)
    sink.put(Line("bad"))
    _eventually(lambda: sink.counts.dropped == 1)
    sink.put(Line("good"))
    sink.close()
    assert other.got == ["good"]
    assert str(sink.counts) == "x: 1 results sent, 1 dropped: it answered 400"
    assert sink.counts.to_json()["why"] == "it answered 400"


@pytest.mark.parametrize("stalls", [False, True])
def test_a_dead_side_does_not_hold_up_the_end(stalls: bool) -> None:
    other = _Other()

    def down(lines: Sequence[Line]) -> None:
        raise SinkFailed("connection refused", left=lines)

    if stalls:
        other.open.clear()
    else:
        other.answers = [down] * 1000
    sink = Sink("x", other, lambda text: None)
    for line in "abc":
        sink.put(Line(line))
    sink.close(0.2)
    assert (sink.counts.sent, sink.counts.dropped, sink.counts.waiting) == (0, 3, 0)
    why = "it did not answer before the job ended" if stalls else "connection refused"
    assert str(sink.counts) == f"x: 0 results sent, 3 dropped: {why}"
    other.open.set()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/x", "is not the address of a sink. Give http"),
        ("results", "is not the address of a sink"),
        ("http:///path", "is not the address of a sink"),
        ("mqtt://host", "names no topic"),
        ("kafka://host:9092/", "names no topic"),
        ("http://host:port/", "is not the address of a sink: Port could not be cast"),
        ("kafka://host:9092/topic?no.such.setting=1", "No such configuration property"),
        ("mqtt://me:secret@host/", "'mqtt://host/' names no topic"),
    ],
)
def test_addresses(url: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        open_transport(url)
