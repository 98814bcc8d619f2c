"""One input in a child process, with limits of memory and time."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from retinart.engine.errors import RetinartError

DEFECT = 70
BAD = ("70", "signal", "hang", "memory")


@dataclass(frozen=True)
class Outcome:
    """How an input ended.

    Attributes:
        kind: "0" to "3" or "70" as the command line's exit code, "signal", "hang" or "memory".
        text: of the error, for a bad outcome.
    """

    kind: str
    text: str = ""

    @property
    def bad(self) -> bool:
        """Whether it is a defect."""
        return self.kind in BAD


def run(work: Callable[[], object], *, seconds: int = 60, mib: int = 4096) -> Outcome:
    """The outcome of some work in a forked child.

    Args:
        seconds: that it may take.
        mib: that its resident memory may grow to.
    """
    read, write = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.close(read)
        _work(work, write, seconds)
    os.close(write)
    with os.fdopen(read, errors="replace") as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if usage.ru_maxrss > mib * 1024:
        return Outcome("memory", f"{usage.ru_maxrss // 1024} MiB {text}")
    if os.WIFSIGNALED(status):
        kind = "hang" if os.WTERMSIG(status) == signal.SIGALRM else "signal"
        took = f"signal {os.WTERMSIG(status)} after {time.monotonic() - start:.1f} s"
        return Outcome(kind, f"{took} {text}")
    return Outcome(str(os.WEXITSTATUS(status)), text)


def _work(work: Callable[[], object], write: int, seconds: int) -> None:
    code, text = 0, ""
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        work()
    except RetinartError as error:
        code, text = error.exit_code, str(error)
    except BaseException as error:
        code, text = DEFECT, f"{type(error).__name__}: {error}"
        place = error.__traceback__
        while place is not None:
            text += f"\n  {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
            place = place.tb_next
    finally:
        os.write(write, text[:4000].encode("utf-8", "replace"))
        os._exit(code)
