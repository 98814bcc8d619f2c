"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

_WIDTH = 30


class Progress:
    """Says how far a long job is; nothing of it goes to stdout."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.perf_counter()

    def update(self, done: int, total: int, text: str) -> None:
        """Redraw the bar, at most ten times a second; without a terminal, a line every 20 s."""
        now = time.perf_counter()
        if now - self._shown < (0.1 if self._terminal else 20):
            return
        self._shown = now
        left = (now - self._started) / max(1, done) * (total - done)
        full = _WIDTH * done // max(1, total)
        if not self._terminal:
            self.line(f"{done}/{total} {text} {left:.0f} s left")
            return
        bar = "#" * full + "." * (_WIDTH - full)
        sys.stderr.write(f"\r\x1b[K[{bar}] {done}/{total} {text} {left:.0f} s left")
        sys.stderr.flush()

    def line(self, text: str) -> None:
        """A line that stays."""
        sys.stderr.write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")
        sys.stderr.flush()
