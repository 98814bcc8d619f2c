"""Steps that go on when one of them fails. Each result is on the disk when its step ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinart.benchmarks.timing.steps import State, Step, Steps
from retinart.benchmarks.timing.worker import Incomplete, Lost
from retinart.engine.errors import BadInput, MissingDependency

NO_TIME = "the time was up: run it again with the same --out"
Work = Callable[[], Any]


class Attempts:
    """Runs steps by name, and keeps and prints how each went.

    Args:
        out: file of the steps, taken over when it is there; None keeps nothing.
        call: does a step's work within a number of seconds (None: its own limit).
        on: what does the work, such as the name of a GPU.
        seconds: after which no step begins.
        retry: attempt steps again that failed in an earlier run.
    """

    def __init__(
        self,
        out: Path | None = None,
        *,
        call: Callable[[Work, float | None], Any] = lambda work, limit: work(),
        on: str = "",
        seconds: float = float("inf"),
        retry: bool = False,
    ) -> None:
        self._out, self._call, self._on = out, call, on
        self._end = time.monotonic() + seconds
        self._over = ("done",) if retry else ("done", "FAILED")
        self._steps = Steps(out, job="gpu")

    @property
    def all(self) -> dict[str, Step]:
        """The steps by name."""
        return self._steps.all

    def same(self, name: str, value: dict[str, str]) -> None:
        """Note what the results are of; BadInput where an earlier run's are of something else."""
        old = self.all.get(name)
        if old is None:
            self.note(name, value)
        elif differ := [key for key in value if old.result.get(key) != value[key]]:
            raise BadInput(
                f"{self._out} is of another {', '.join(differ)}",
                fix="Give another file with `out`",
            )

    def note(self, name: str, value: Any) -> None:
        """Keep a value that needed no work."""
        self._put(name, "done", time.perf_counter(), value)

    def forget(self, name: str) -> None:
        """Let a step run again, because what it made is gone."""
        self.all.pop(name, None)

    def over(self, name: str) -> bool:
        """Whether an earlier run has its result."""
        return name in self.all and self.all[name].state in self._over

    def run(self, name: str, work: Work, limit: float | None = None) -> None:
        """Attempt a step that no earlier run finished.

        Args:
            name: of the step.
            work: gives the result.
            limit: seconds after which it has failed.
        """
        if self.over(name):
            return
        if time.monotonic() > self._end:
            self.skip(name, NO_TIME)
            return
        start = time.perf_counter()
        try:
            self._put(name, "done", start, self._call(work, limit))
        except Incomplete as error:
            self._put(name, "FAILED", start, error.figures)
        except (MissingDependency, ImportError) as error:
            self._put(name, "skipped", start, str(error))
        except Lost as error:
            self._put(name, "FAILED", start, str(error))
        except Exception as error:  # a GPU can raise anything, and each of it is a finding
            self._put(name, "FAILED", start, f"{type(error).__name__}: {error}")

    def skip(self, name: str, why: str) -> None:
        """Note that a step cannot run here, if no earlier run finished it."""
        if not self.over(name):
            self._put(name, "skipped", time.perf_counter(), why)

    def good(self, name: str) -> bool:
        """Whether a step went well, now or in an earlier run."""
        return name in self.all and self.all[name].state == "done"

    def count(self, state: State) -> int:
        """How many steps ended so."""
        return sum(step.state == state for step in self.all.values())

    def _put(self, name: str, state: State, start: float, value: Any) -> None:
        seconds = round(time.perf_counter() - start, 1)
        shown = json.loads(json.dumps(value, default=str))
        print(f"{state:<8} {seconds:>7} s  {name}: {json.dumps(shown)}", flush=True)
        self._steps.put(name, Step(state=state, seconds=seconds, result=shown, on=self._on))
