"""Steps whose results are on the disk as soon as each ends: a later run goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinart.benchmarks.gpu.worker import Incomplete, Lost, Work
from retinart.engine.errors import BadInput
from retinart.engine.files import atomic_path

NO_TIME = "the time was up: run it again with the same --out"


class Steps:
    """Runs steps, keeps what they return, and says how each went.

    Args:
        out: written after every step, and taken over if it is there; None for nowhere.
        call: does a step's work.
        seconds: after which no step is begun.
        retry: begin what failed in an earlier run again.
    """

    def __init__(
        self,
        out: Path | None = None,
        *,
        call: Callable[[Work], Any] = lambda work: work(),
        seconds: float = float("inf"),
        retry: bool = False,
    ) -> None:
        self._out, self._call = out, call
        self._end = time.monotonic() + seconds
        self._over = ("done",) if retry else ("done", "FAILED")
        self.results: dict[str, dict[str, Any]] = {}
        if out is not None and out.exists():
            self.results = _read(out)

    def same(self, name: str, value: Any) -> None:
        """Note what the results are of.

        Raises:
            BadInput: those of the earlier run are of something else.
        """
        old, new = self.results.get(name), json.loads(json.dumps(value, default=str))
        if old is not None and old["result"] != new:
            differ = [k for k in new if old["result"].get(k) != new[k]]
            raise BadInput(
                f"{self._out} is of another {', '.join(differ)}", fix="Name another file with --out"
            )
        self._note(name, "done", time.perf_counter(), value)

    def over(self, name: str) -> bool:
        """Whether an earlier run has its result."""
        return self.results.get(name, {}).get("state") in self._over

    def run(self, name: str, work: Work) -> Any:
        """The result of a step; None when it failed, or there was no time for it."""
        if time.monotonic() > self._end:
            self.skip(name, NO_TIME)
            return None
        start = time.perf_counter()
        try:
            value = self._call(work)
        except Incomplete as error:
            self._note(name, "FAILED", start, error.figures)
        except Lost as error:
            self._note(name, "FAILED", start, str(error))
        except Exception as error:  # whatever a GPU throws is a finding
            self._note(name, "FAILED", start, f"{type(error).__name__}: {error}")
        else:
            self._note(name, "done", start, value)
            return value
        return None

    def value(self, name: str, work: Work, *, after: Callable[[], Any] = lambda: True) -> Value:
        """A step whose result later ones need; if an earlier run did it, then when they ask.

        Args:
            name: of the step.
            work: gives the result, quickly when its files are there.
            after: asked before; the step is skipped when it gives None.
        """
        value = Value(self, name, work, after)
        if not self.over(name):
            value()
        return value

    def skip(self, name: str, why: str) -> None:
        """A step that cannot run here."""
        self._note(name, "skipped", time.perf_counter(), why)

    def count(self, state: str) -> int:
        """How many steps ended so."""
        return sum(r["state"] == state for r in self.results.values())

    def _note(self, name: str, state: str, start: float, value: Any) -> None:
        seconds = round(time.perf_counter() - start, 1)
        shown = json.loads(json.dumps(value, default=str))
        print(f"{state:<8} {seconds:>7} s  {name}: {json.dumps(shown)}", flush=True)
        if self.over(name) and state != "FAILED":
            return  # what an earlier run found out, and how long it took, stands
        self.results[name] = {"state": state, "seconds": seconds, "result": shown}
        if self._out is not None:
            with atomic_path(self._out) as temporary:
                text = json.dumps(self.results, indent=1) + "\n"
                temporary.write_text(text, encoding="utf-8")


class Value:
    """The result of a step, which is run at the first call if it was not before."""

    def __init__(self, steps: Steps, name: str, work: Work, after: Callable[[], Any]) -> None:
        self._steps, self._name, self._work, self._after = steps, name, work, after
        self._known: list[Any] = []

    def __call__(self) -> Any:
        """None when the step failed, now or in an earlier run."""
        if not self._known:
            self._known.append(self._run())
        return self._known[0]

    def _run(self) -> Any:
        known = self._steps.results.get(self._name)
        if known is not None and known["state"] == "FAILED" and self._steps.over(self._name):
            return None
        if self._after() is None:
            self._steps.skip(self._name, "what it needs is not there")
            return None
        return self._steps.run(self._name, self._work)


def _read(out: Path) -> dict[str, dict[str, Any]]:
    try:
        results: dict[str, dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
        assert all("state" in step for step in results.values())
    except (ValueError, AttributeError, TypeError, AssertionError) as error:
        raise BadInput(
            f"{out} is no file of this script's", fix="Name another file with --out"
        ) from error
    return results
