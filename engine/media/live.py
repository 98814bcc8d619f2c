"""Live sources, which are webcams and network streams. Only the newest frame counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retinart.engine.common import utc
from retinart.engine.common.timing import TimeStage
from retinart.engine.common.wording import counted
from retinart.engine.media.address import without_secrets
from retinart.engine.media.frame import Chooser, Frame
from retinart.engine.media.images import Image
from retinart.engine.media.settings import FOREVER, LiveSettings, Selection
from retinart.engine.media.source import SourceCounts

if TYPE_CHECKING:
    from retinart.engine.media.connections import Capture

_JOIN_SECONDS = 1.0
_BROKEN_GRABS = 3  # in a row: a capture fails alike at a damaged frame and at the end
_RATE = 25.0  # nominal: what is written of a live source keeps the frames' own times


class LiveSource:
    """Receives all frames of a live source in its own thread, and keeps the newest; a `Source`.

    Args:
        name: to show, without passwords.
        source_index: see `Frame`.
        connect: makes a capture, opened or not; called again for each attempt.
        selection: which frames.
        settings: how patient it is.
        wake: set at each frame and at the end.
        say: told what happens to the connection.
        time_stage: told how long each frame took, waiting for it and decoding it, as "receive".
    """

    live, stills = True, False
    rate, size, has_sound = _RATE, None, None
    files = unreadable = ()

    def __init__(
        self,
        name: str,
        *,
        source_index: int,
        connect: Callable[[], Capture],
        selection: Selection,
        settings: LiveSettings,
        wake: threading.Event,
        say: Callable[[str], None],
        time_stage: TimeStage,
    ) -> None:
        self.name, self.counts = name, SourceCounts()
        self._source_index, self._connect, self._settings = source_index, connect, settings
        self._choose, self._wake, self._say, self._time = Chooser(selection), wake, say, time_stage
        self._newest: Frame | None = None
        self._started: float | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"retinart-live-{source_index}", daemon=True
        )
        self._thread.start()

    def take(self) -> Frame | None:
        """The newest frame; None when no new one has come since the last."""
        with self._lock:
            frame, self._newest = self._newest, None
            self.counts.taken += frame is not None
            return frame

    @property
    def ended(self) -> bool:
        """See `Source`."""
        with self._lock:
            return bool(self.counts.ended) and self._newest is None

    def close(self) -> None:
        """Stop receiving. A thread that waits for the network ends at its time-out."""
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)
        with self._lock:
            self.counts.ended = self.counts.ended or "stopped"
            self.counts.dropped += self._newest is not None
            self._newest = None

    def _run(self) -> None:
        retries = 0
        while not self._stop.is_set():
            before = self.counts.read
            try:
                why = self._receive()
            except Exception as error:  # of a driver or a decoder: treated like a broken connection
                why = without_secrets(f"{type(error).__name__}: {error}")
            if self._stop.is_set() or self.counts.ended:
                break
            if self.counts.read > before:
                retries = 0
            limit = self._settings.max_retries
            if limit != FOREVER and retries >= limit:
                tried = counted(retries, "retry", "retries")
                self._say(f"{self.name}: {why}; given up after {tried}")
                self._end("lost", why)
                break
            retries += 1
            wait = self._settings.wait_before(retries)
            of = "" if limit == FOREVER else f" of {limit}"
            self._say(f"{self.name}: {why}; retry {retries}{of} in {wait:.1f} s")
            if self._stop.wait(wait):
                break
            self.counts.reconnects += 1
        self._wake.set()

    def _receive(self) -> str:
        """Receive from one connection until it ends, and return why it did."""
        capture = self._connect()
        try:
            if not capture.isOpened():
                why = _why(capture)
                return f"cannot be opened ({why})" if why else "cannot be opened"
            failed = 0  # grabs in a row
            while not self._stop.is_set():
                start = time.perf_counter()
                if not capture.grab():
                    if time.perf_counter() - start > 0.9 * self._settings.timeout:
                        return f"no frame for {self._settings.timeout:g} s"
                    failed += 1
                    if failed > _BROKEN_GRABS:
                        return _why(capture) or "the stream ended or broke off"
                    continue
                captured = time.perf_counter()
                self._count_broken(failed)  # a frame follows, so they were not the end
                failed = 0
                self._offer(capture, start, captured)
                if self.counts.ended:
                    break
            return ""
        finally:
            capture.release()

    def _count_broken(self, frames: int) -> None:
        with self._lock:
            self.counts.read += frames
            self.counts.broken += frames

    def _offer(self, capture: Capture, start: float, captured: float) -> None:
        index, received = self.counts.read, utc.now()
        self._started = captured if self._started is None else self._started
        time_ms = 1000 * (captured - self._started)
        choice = self._choose(index, time_ms)
        if choice == "end":
            self._end("end")
            return
        image = None
        if choice == "take":
            ok, decoded = capture.retrieve()
            image = _picture(ok, decoded)
        self._time("receive", time.perf_counter() - start)
        with self._lock:
            if self._stop.is_set():  # closed, and counted
                return
            self.counts.read += 1
            if choice == "skip":
                self.counts.skipped += 1
            elif image is None:
                self.counts.broken += 1
            else:
                self.counts.dropped += self._newest is not None
                self._newest = Frame(
                    source=self.name,
                    source_index=self._source_index,
                    index=index,
                    time_ms=time_ms,
                    image=image,
                    utc=received,
                    captured=captured,
                )
        self._wake.set()

    def _end(self, how: str, why: str = "") -> None:
        with self._lock:
            self.counts.ended, self.counts.why = how, why
        self._wake.set()


def _why(capture: Capture) -> str:
    """Why a capture cannot be opened or gives no frame; "" where it does not know."""
    return str(getattr(capture, "why", ""))


def _picture(ok: bool, image: npt.NDArray[Any] | None) -> Image | None:
    """(H, W, 3) uint8 BGR, or None where a driver or decoder gave something else."""
    if not ok or image is None or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        return None
    return np.asarray(image, np.uint8)
