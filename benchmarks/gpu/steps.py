"""Steps whose results are on the disk as soon as each ends: a later run goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinart.benchmarks.timing.isolated import Incomplete, Lost, Missing, Work
from retinart.engine.common.files import atomic_path
from retinart.engine.errors import BadInput, MissingDependency

NO_TIME = "the time was up: run it again with the same --out"


class Steps:
    """Runs steps, keeps what they return, and says how each went.

    Args:
        out: written after every step, and taken over if it is there; None for nowhere.
        call: does a step's work, within so many seconds (None: its own number).
        where: what works, such as the name of a GPU; noted with each result.
        seconds: after which no step is begun.
        retry: begin what failed in an earlier run again.
    """

    def __init__(
        self,
        out: Path | None = None,
        *,
        call: Callable[[Work, float | None], Any] = lambda work, limit: work(),
        where: str = "",
        seconds: float = float("inf"),
        retry: bool = False,
    ) -> None:
        self._out, self._call, self._where = out, call, where
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
            if differ:
                raise BadInput(
                    f"{self._out} is of another {', '.join(differ)}",
                    fix="Name another file with --out",
                )
        if old is None:
            self.note(name, value)

    def note(self, name: str, value: Any) -> None:
        """Something that was found without work."""
        self._note(name, "done", time.perf_counter(), value)

    def forget(self, name: str) -> None:
        """Let a step run again, as what it made is gone."""
        self.results.pop(name, None)

    def over(self, name: str) -> bool:
        """Whether an earlier run has its result."""
        return self.results.get(name, {}).get("state") in self._over

    def run(self, name: str, work: Work, limit: float | None = None) -> Any:
        """The result of a step; None when it failed, was skipped, or an earlier run did it.

        Args:
            name: of the step.
            work: gives the result.
            limit: seconds after which it has failed.
        """
        if self.over(name):
            return None
        if time.monotonic() > self._end:
            self.skip(name, NO_TIME)
            return None
        start = time.perf_counter()
        try:
            value = self._call(work, limit)
        except Incomplete as error:
            self._note(name, "FAILED", start, error.figures)
        except (Missing, MissingDependency, ImportError) as error:
            self._note(name, "skipped", start, str(error))
        except Lost as error:
            self._note(name, "FAILED", start, str(error))
        except Exception as error:  # whatever a GPU throws is a finding
            self._note(name, "FAILED", start, f"{type(error).__name__}: {error}")
        else:
            self._note(name, "done", start, value)
            return value
        return None

    def skip(self, name: str, why: str) -> None:
        """A step that cannot run here, if no earlier run did it."""
        if not self.over(name):
            self._note(name, "skipped", time.perf_counter(), why)

    def good(self, name: str) -> bool:
        """Whether a step went well, now or in an earlier run."""
        return self.results.get(name, {}).get("state") == "done"

    def count(self, state: str) -> int:
        """How many steps ended so."""
        return sum(r["state"] == state for r in self.results.values())

    def _note(self, name: str, state: str, start: float, value: Any) -> None:
        seconds = round(time.perf_counter() - start, 1)
        shown = json.loads(json.dumps(value, default=str))
        print(f"{state:<8} {seconds:>7} s  {name}: {json.dumps(shown)}", flush=True)
        self.results[name] = {"state": state, "seconds": seconds, "result": shown}
        if self._where:
            self.results[name]["on"] = self._where
        if self._out is not None:
            with atomic_path(self._out) as temporary:
                text = json.dumps(self.results, indent=1) + "\n"
                temporary.write_text(text, encoding="utf-8")


def _read(out: Path) -> dict[str, dict[str, Any]]:
    try:
        results: dict[str, dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
        assert all("state" in step for step in results.values())
    except (ValueError, AttributeError, TypeError, AssertionError) as error:
        raise BadInput(
            f"{out} is no file of this script's", fix="Name another file with --out"
        ) from error
    return results
