"""Progress on stderr: a bar on a terminal, otherwise a plain line every ten seconds.

The end is not shown: the caller then prints what came out. A stand-in for stderr that keeps what is
printed names the stream that shows the plain lines as `progress`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

CLEAR = "\r\x1b[K"  # what a terminal takes for: empty this line
_WIDTH = 30
_PLAIN_SECONDS = 10.0
_FEWEST, _SHARE, _SECONDS = 3, 0.01, 3.0  # before the time left is estimated


class Progress:
    """Shows on stderr how far a long job is."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.perf_counter()
        self._begun: int | None = None

    def begin(self, done: int) -> None:
        """Count the time left from now, not from the first update. `done` items are behind."""
        self._started, self._begun = time.perf_counter(), done

    def update(self, done: int, total: int, text: str | Callable[[], str]) -> None:
        """Show the state, and remove the bar at the end. A total of 0 means that it is unknown."""
        now = time.perf_counter()
        if self._begun is None:  # what came before it was loading, and a slow first item
            self._started, self._begun = now, done
        if total and done >= total:
            self._clear()
            return
        if now - self._shown < (0.1 if self._terminal else _PLAIN_SECONDS):
            return
        self._shown = now
        text = text if isinstance(text, str) else text()
        count = f"{done}/{total}" if total else str(done)
        items, seconds = done - self._begun, now - self._started
        if total and items >= max(_FEWEST, _SHARE * total) and seconds >= _SECONDS:
            text = f"{text} {seconds / items * (total - done):.0f} s left"
        if not self._terminal:
            shown = getattr(sys.stderr, "progress", sys.stderr)
            shown.write(f"{count} {text}\n")
            shown.flush()
            return
        full = _WIDTH * done // total if total else 0
        bar = "#" * full + "." * (_WIDTH - full)
        sys.stderr.write(f"{CLEAR}[{bar}] {count} {text}")
        sys.stderr.flush()

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self._clear()
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def _clear(self) -> None:
        if self._terminal:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()
