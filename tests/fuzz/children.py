"""One input in a forked child, with limits of memory and time.

The parent has imported everything, so a child costs little. It must have no threads, for a fork
does not copy them.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from retinart.engine.errors import RetinartError

DEFECT = 70
BAD = ("70", "signal", "hang", "memory")
GIB = 1 << 30
_ENDED_BY_TIME = (signal.SIGALRM, signal.SIGXCPU)
_WAITS = 10  # times as long by the clock as of the CPU: other programs must not make a hang


@dataclass(frozen=True)
class Outcome:
    """How an input ended.

    Attributes:
        kind: "0" to "3" or "70" as the command line's exit code, "signal", "hang" or "memory".
        text: of the error.
        cpu_seconds: of the child.
        mib: the child's largest resident memory.
    """

    kind: str
    text: str = ""
    cpu_seconds: float = 0.0
    mib: int = 0

    @property
    def bad(self) -> bool:
        """Whether it is a defect."""
        return self.kind in BAD


def run(work: Callable[[], object], *, seconds: int = 60, gib: int = 4) -> Outcome:
    """The outcome of some work in a forked child.

    Args:
        seconds: that its threads may compute together. It may take ten times as long by the clock.
        gib: that its resident memory may grow to. It may reserve twice as much.
    """
    read, write = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.close(read)
        _work(work, write, seconds, 2 * gib * GIB)
    os.close(write)
    with os.fdopen(read, errors="replace") as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child, 0)
    kind, mib = str(os.waitstatus_to_exitcode(status)), usage.ru_maxrss // 1024
    if mib > 1024 * gib:
        kind, text = "memory", f"{mib} MiB {text}"
    elif os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        kind = "hang" if number in _ENDED_BY_TIME else "signal"
        text = f"signal {number} after {time.monotonic() - start:.1f} s {text}"
    return Outcome(kind, text, usage.ru_utime + usage.ru_stime, mib)


def import_what_is_used(works: dict[str, Callable[[], object]]) -> None:
    """Import here what some works import when they run, which must succeed.

    Each runs in a child: most libraries start threads, which this process must not have.
    """

    def names() -> None:
        before = set(sys.modules)
        for name, work in works.items():
            try:
                work()
            except RetinartError as error:
                raise RuntimeError(f"{name}: {error}") from error
        raise _Names(" ".join(sorted(set(sys.modules) - before)))

    found = run(names, seconds=600)
    assert found.kind == "0", found
    from retinart.engine.runtime.openvino_api import load_openvino

    load_openvino()  # the plain import would start a thread
    for name in found.text.split():
        with suppress(ImportError):  # a few make themselves, without a file
            importlib.import_module(name)


class _Names(Exception):
    pass


def _work(work: Callable[[], object], write: int, seconds: int, reserved: int) -> None:
    code, text = 0, ""
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (reserved, reserved))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # of all its threads
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_WAITS * seconds)
        work()
    except _Names as names:
        text = str(names)
    except RetinartError as error:
        code, text = error.exit_code, str(error)
    except BaseException as error:
        code, text = DEFECT, f"{type(error).__name__}: {error}"
        place = error.__traceback__
        while place is not None:
            text += f"\n  {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
            place = place.tb_next
        text = text[:4000]
    finally:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(text.encode("utf-8", "replace"))
        os._exit(code)
