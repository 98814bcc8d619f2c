"""Work in another process, so that the asking process keeps its memory and survives a crash."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from retinart.engine.errors import RetinartError

State = TypeVar("State")
Answer = TypeVar("Answer")
_END_SECONDS = 10  # that a process has to end by itself


class Incomplete(Exception):
    """Work that went wrong in part; `figures` are the other parts' results, with the errors."""

    def __init__(self, figures: dict[str, Any]) -> None:
        super().__init__(figures)
        self.figures = figures


class Lost(Exception):
    """The process failed, died, or took too long; the message says which."""


class Worker(Generic[State]):
    """Runs functions in one spawned process, and in a fresh one after a failure.

    A CUDA error can stay with its process for good, and a defect of a native library ends it.

    Args:
        make: called in the new process. Each function gets what it returns.
        seconds: limit of a call that names none; None waits without end.
    """

    def __init__(self, make: Callable[[], State], *, seconds: float | None = None) -> None:
        self._make, self._seconds = make, seconds
        self._process: Any = None
        self._pipe: Connection | None = None

    def call(self, function: Callable[[State], Answer], *, seconds: float | None = None) -> Answer:
        """What a function returns within some seconds. Both have to be picklable.

        Raises:
            RetinartError, ImportError, Incomplete: `make` or the function raised it.
            Lost: it raised another error, the process died, or the time was up.
        """
        seconds = self._seconds if seconds is None else seconds
        pipe = self._pipe or self._start()
        good = False
        try:
            pipe.send(function)
            if not pipe.poll(seconds):
                raise Lost(f"stopped after {seconds:g} s")
            good, answer, trace = pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(_END_SECONDS)
            code = self._process.exitcode
            raise Lost(f"its process died with exit code {code}") from error
        finally:
            if not good:
                self._kill()
        if not good:
            raise answer from _ChildTrace(trace)
        return answer  # type: ignore[no-any-return]

    def __enter__(self) -> Worker[State]:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, which does so by itself when its pipe is closed."""
        if self._pipe is not None:
            self._pipe.close()
            self._process.join(_END_SECONDS)
            self._kill()

    def _kill(self) -> None:
        assert self._pipe is not None
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._pipe = None

    def _start(self) -> Connection:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        # not a daemon, because work may start processes, as torch.compile does
        self._process = spawn.Process(target=_serve, args=(theirs, self._make))
        self._process.start()
        theirs.close()
        return self._pipe


def nothing() -> None:
    """The state of a worker whose functions need none."""


def stateless(work: Callable[[], Answer]) -> Callable[[None], Answer]:
    """Work without arguments as a function for a worker of `nothing`."""
    return partial(_stateless, work)


def _stateless(work: Callable[[], Answer], state: None) -> Answer:
    return work()


class _ChildTrace(Exception):
    """The other process's traceback, shown as the cause of its error."""


def _serve(pipe: Connection, make: Callable[[], Any]) -> None:
    """Answer until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the asking process, which ends this
    made: list[Any] = []
    while True:
        try:
            function = pipe.recv()
        except EOFError:
            return
        try:
            made = made or [make()]
            answer = (True, function(made[0]), "")
        except (RetinartError, ImportError, Incomplete) as error:
            answer = (False, error, traceback.format_exc())
        except Exception as error:  # a GPU can raise anything, and each of it is a finding
            lost = Lost(f"{type(error).__name__}: {error}")
            answer = (False, lost, traceback.format_exc())
        pipe.send(answer)
