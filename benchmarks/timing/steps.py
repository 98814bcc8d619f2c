"""Steps of a long job, each on disk as soon as it ends: a stopped job goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

from retinart.benchmarks.timing.source_hash import MODELS, code_hash
from retinart.engine.common.files import sha256, write_json
from retinart.engine.common.kept_state import content_sha256, read_or_set_aside
from retinart.engine.common.progress import Progress
from retinart.engine.common.typed_json import T, from_json, read_typed, to_json
from retinart.engine.errors import BadInput

State = Literal["done", "FAILED", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a step ended.

    Attributes:
        state: "FAILED" in capitals, to be seen in a long list.
        seconds: that it took.
        result: what it gave, or why it did not, in JSON's types.
        on: what it ran on, such as the name of a GPU; "" where that does not matter.
    """

    state: State
    seconds: float
    result: Any
    on: str = ""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    SCHEMA: ClassVar[int] = 1
    AGAIN: ClassVar[str] = "Delete the file, or give another folder"

    job: str
    steps: dict[str, Step] = field(default_factory=dict)
    sha256: str = ""  # of the steps; "" in files of earlier versions


class Steps:
    """The steps of a job by name, in a file.

    Args:
        path: the file; it is taken over when it is there. None keeps nothing.
        job: what the steps belong to.

    Attributes:
        taken_over: steps that no longer had to be made.
    """

    def __init__(self, path: Path | None, *, job: str) -> None:
        self._path, self._kept = path, _Kept(job=job)
        self._progress, self.taken_over = Progress(), 0
        if path is None:
            return
        kept = read_or_set_aside(path, _read, "every step is made anew")
        if kept is not None:
            self._kept = kept
            if self._kept.job != job:
                what = f"{path} is of the job {self._kept.job}, and this is {job}"
                raise BadInput(what, fix=_Kept.AGAIN)

    @property
    def all(self) -> dict[str, Step]:
        """The steps by name, the oldest first."""
        return self._kept.steps

    def put(self, name: str, step: Step) -> None:
        """Keep a step, on disk as well."""
        self._kept.steps[name] = step
        if self._path is not None:
            kept = to_json(self._kept)
            write_json(self._path, {**kept, "sha256": content_sha256(kept["steps"])}, indent=1)

    def once(
        self,
        what: str,
        about: str,
        inputs: dict[str, Any],
        make: Callable[[], Any],
        holds: Callable[[Any], bool] = lambda result: True,
    ) -> Any:
        """The result of a step in JSON's types, which is made when no earlier run made it.

        Args:
            what: the kind of step.
            about: what it is made for; people see both.
            inputs: everything that the result depends on, in JSON's types.
            make: makes it.
            holds: whether an earlier result can still be used.
        """
        name = f"{what} {about} {digest(inputs)[:16]}"
        if (kept := self.all.get(name)) is not None and holds(kept.result):
            self.taken_over += 1
            return kept.result
        self._progress.line(f"{what} {about}")
        start = time.perf_counter()
        result = json.loads(json.dumps(make()))
        self.put(name, Step(state="done", seconds=time.perf_counter() - start, result=result))
        return result

    def file(
        self, what: str, path: Path, inputs: dict[str, Any], make: Callable[[], object]
    ) -> Path:
        """A file that `once` makes, and makes again when the file is gone or has changed.

        Args:
            what, inputs: as in `once`.
            path: where `make` writes it.
        """

        def make_and_hash() -> str:
            make()
            return sha256(path)

        def holds(digest: str) -> bool:
            return path.is_file() and sha256(path) == digest

        self.once(what, path.name, inputs, make_and_hash, holds)
        return path

    def record(
        self, kind: type[T], what: str, about: str, inputs: dict[str, Any], make: Callable[[], T]
    ) -> T:
        """As `once`, for a step whose result is a record."""
        result = self.once(what, about, inputs, lambda: to_json(make()))
        return from_json(kind, result, f"the step {what} {about}")

    def records(self, kind: type[T], what: str, about: str) -> Iterator[T]:
        """The records of the steps with any inputs, the latest first."""
        for name, step in reversed(self.all.items()):
            if name.startswith(f"{what} {about} "):
                yield from_json(kind, step.result, f"the step {what} {about}")


def _read(path: Path) -> _Kept:
    kept = read_typed(_Kept, path)
    if kept.sha256 and kept.sha256 != content_sha256(to_json(kept)["steps"]):
        why = "its steps have another hash than it says"
        raise BadInput(f"{path} was changed", why=why, fix=_Kept.AGAIN)
    return kept


def digest(content: Any) -> str:
    """A hash of JSON's types."""
    return content_sha256(content)


def code_of_models() -> dict[str, str]:
    """Versions and a hash that stand for all code that a model file and its results depend on."""
    versions = {name: version(name) for name in ("retinart", "openvino", "numpy")}
    return {**versions, "code": code_hash(MODELS)}
