"""Send results to another program without waiting for it.

A job puts a line and goes on. A thread sends the lines in their order. While the other side is
down, the thread tries again and the newest lines wait; older ones are dropped and counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

PLACES = 1000  # lines that may wait
TOGETHER = 100  # most lines of one attempt
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between attempts
LAST_SECONDS = 5.0  # for what waits when a job ends


class Line(NamedTuple):
    """A result on its way.

    Attributes:
        text: JSON on one line, without its end.
        source: of the frame; lines of one source keep their order.
    """

    text: str
    source: str = ""


class SinkFailed(Exception):
    """Not all lines were confirmed.

    Args:
        why: for people.
        left: the lines that are to be sent again.
        refused: how many the other side will never take.
    """

    def __init__(self, why: str, *, left: Sequence[Line] = (), refused: int = 0) -> None:
        super().__init__(why)
        self.left, self.refused = left, refused


class Transport(Protocol):
    """A way to send lines. One thread uses it."""

    def send(self, lines: Sequence[Line]) -> None:
        """Send lines in their order, and wait until the other side has confirmed them.

        Raises:
            SinkFailed: some were not confirmed.
        """

    def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, kw_only=True)
class SinkCounts:
    """What became of the lines of a sink.

    Attributes:
        name: its address without secrets.
        sent: confirmed by the other side.
        dropped: lost. The other side was down for too long, or refused them.
        waiting: not sent yet.
        failures: attempts that failed.
        why: the last failure.
    """

    name: str
    sent: int = 0
    dropped: int = 0
    waiting: int = 0
    failures: int = 0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """As an object of `summary.json`."""
        return {
            "sink": self.name,
            "sent": self.sent,
            "dropped": self.dropped,
            "failures": self.failures,
            "why": self.why or None,
            "covers": "results by frame, and events; dropped ones were lost, because the sink was "
            "down or refused them",
        }

    def __str__(self) -> str:
        lost = f", {self.dropped:,} dropped: {self.why}" if self.dropped else ""
        return f"{self.name}: {self.sent:,} results sent{lost}"


class Sink:
    """Sends lines from a thread of its own.

    Args:
        name: its address without secrets.
        transport: how.
        say: told when the other side fails and when it is back.
        places: lines that may wait.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        say: Callable[[str], None],
        *,
        places: int = PLACES,
    ) -> None:
        self._name, self._transport, self._say, self._places = name, transport, say, places
        self._lines = deque[Line]()
        self._sending: Sequence[Line] = ()
        self._sent = self._dropped = self._failures = 0
        self._why = ""
        self._ends_at = float("inf")  # time.monotonic
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="retinart-sink", daemon=True)
        self._thread.start()

    def put(self, line: Line) -> None:
        """Send a line when its turn comes. It never waits."""
        with self._changed:
            self._lines.append(line)
            if len(self._lines) > self._places:
                self._lines.popleft()
                self._dropped += 1
            self._changed.notify_all()

    @property
    def counts(self) -> SinkCounts:
        """What became of the lines so far."""
        with self._changed:
            return SinkCounts(
                name=self._name,
                sent=self._sent,
                dropped=self._dropped,
                waiting=len(self._lines) + len(self._sending),
                failures=self._failures,
                why=self._why,
            )

    def close(self, seconds: float = LAST_SECONDS) -> None:
        """Send what waits, for some seconds at most; what is left then counts as dropped."""
        with self._changed:
            if self._ending:
                return
            self._ends_at = time.monotonic() + seconds
            self._changed.notify_all()
        self._thread.join(seconds + 0.5)
        with self._changed:
            if self._sending:
                self._why = self._why or "it did not answer before the job ended"
            self._dropped += len(self._lines) + len(self._sending)
            self._lines.clear()
            self._sending = ()

    def _run(self) -> None:
        failed, wait = False, FIRST_WAIT
        while self._take():
            try:
                self._transport.send(self._sending)
            except SinkFailed as error:
                self._note(error)
                if not error.left:
                    continue
                if not failed:
                    self._say(f"{self._name}: {error}; results wait, {self._places:,} at most")
                failed = True
                self._pause(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                if failed:
                    self._say(f"{self._name}: it takes results again")
                failed, wait = False, FIRST_WAIT
                with self._changed:
                    self._sent, self._sending = self._sent + len(self._sending), ()
        self._transport.close()

    def _take(self) -> bool:
        """Take the lines of the next attempt; False when none are left to send."""
        with self._changed:
            self._changed.wait_for(lambda: self._sending or self._lines or self._ending)
            if time.monotonic() > self._ends_at or not (self._sending or self._lines):
                return False
            room = TOGETHER - len(self._sending)
            more = [self._lines.popleft() for _ in range(min(room, len(self._lines)))]
            self._sending = [*self._sending, *more]
            return True

    @property
    def _ending(self) -> bool:
        return self._ends_at < float("inf")

    def _note(self, error: SinkFailed) -> None:
        with self._changed:
            if not self._sending:  # `close` has counted them as dropped
                return
            self._sent += len(self._sending) - len(error.left) - error.refused
            self._dropped += error.refused
            self._sending, self._why = list(error.left), str(error)
            self._failures += 1

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; the job's end asks for one at once."""
        with self._changed:
            if self._ending:
                self._changed.wait(min(FIRST_WAIT, max(0.0, self._ends_at - time.monotonic())))
            else:
                self._changed.wait_for(lambda: self._ending, seconds)
