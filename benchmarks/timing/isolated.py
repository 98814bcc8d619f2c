"""Work in a process of its own, so that nothing it does can end or spoil the process that asks."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from retinart.engine.errors import MissingDependency

Work = Callable[[], Any]


class Incomplete(Exception):
    """Work that went wrong in part.

    Attributes:
        figures: what it found all the same, with its errors.
    """

    def __init__(self, figures: dict[str, Any]) -> None:
        super().__init__(figures)
        self.figures = figures


class Lost(Exception):
    """The process went wrong, died, or took too long; the message says which."""


class Missing(Lost):
    """What the work needs is not on this machine; the message says what."""


class Worker:
    """Runs work in one spawned process, and in a fresh one after any that fails.

    A CUDA error can stay with its process for good, and a defect of a native library ends it.

    Args:
        seconds: after which work is stopped, if `call` names no other number.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: Any = None
        self._pipe: Connection | None = None

    def call(self, work: Work, seconds: float | None = None) -> Any:
        """What `work` returns; it and that must be picklable.

        Raises:
            Incomplete: `work` raised it.
            Missing: it raised MissingDependency, or ImportError.
            Lost: it raised something else, its process died, or the time was up.
        """
        seconds = self._seconds if seconds is None else seconds
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        good = False
        try:
            self._pipe.send(work)
            if not self._pipe.poll(seconds):
                raise Lost(f"stopped after {seconds:g} s")
            kind, value = self._pipe.recv()
            good = kind == "value"
        except (EOFError, OSError) as error:
            self._process.join(10)
            raise Lost(f"its process died with exit code {self._process.exitcode}") from error
        finally:
            if not good:
                self.close()
        if kind == "value":
            return value
        if kind == "figures":
            raise Incomplete(value)
        raise Missing(value) if kind == "missing" else Lost(value)

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._pipe = None

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        # no daemon: work may start processes, as torch.compile does
        self._process = spawn.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks, who then ends this
    while True:
        try:
            work: Work = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("value", work())
        except Incomplete as error:
            answer = ("figures", error.figures)
        except (ImportError, MissingDependency) as error:
            answer = ("missing", str(error))
        except Exception as error:  # whatever a GPU throws is a finding
            answer = ("error", f"{type(error).__name__}: {error}")
        pipe.send(answer)
