"""Steps of a long job, each kept under the hash of what it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retinart.calib.resume import Saved
from retinart.engine.files import sha256
from retinart.engine.progress import Progress


class Steps:
    """Makes each step once; a job that was stopped, or asks for more, makes what is left.

    Args:
        path: the file that keeps what the steps gave.
        key: of the job; what another one left there is not taken up.

    Attributes:
        taken_over: steps that had been made before.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._saved = Saved(path, key=key)
        self._versions = {n: version(n) for n in ("retinart", "openvino", "numpy")}
        self._progress = Progress()
        self.taken_over = 0

    def file(
        self, what: str, path: Path, inputs: dict[str, Any], make: Callable[[], object]
    ) -> Path:
        """A file that is made once, and again when it is gone or is another one by now.

        Args:
            what, inputs: as in `once`.
            path: where `make` writes it.
        """

        def make_and_hash() -> str:
            make()
            return sha256(path)

        def holds(digest: str) -> bool:
            return path.is_file() and sha256(path) == digest

        self.once(what, path, {"name": path.name, **inputs}, make_and_hash, holds)
        return path

    def once(
        self,
        what: str,
        path: Path,
        inputs: dict[str, Any],
        make: Callable[[], Any],
        holds: Callable[[Any], bool] = lambda found: True,
    ) -> Any:
        """What a step gave, in JSON's types.

        Args:
            what: the kind of step.
            path: the file that it is about, for people.
            inputs: everything that its result depends on, in JSON's types.
            make: makes it.
            holds: whether what it gave once is still so.
        """
        content = json.dumps([what, inputs, self._versions], sort_keys=True)
        key = f"{what} {hashlib.sha256(content.encode()).hexdigest()}"
        found = self._saved.get(key)
        if found is not None and holds(found):
            self.taken_over += 1
            return found
        self._progress.line(f"{what} {path.name}")
        found = make()
        self._saved.set(key, found)
        return found


def hash_of(paths: Sequence[Path]) -> str:
    """Of the files' names and contents."""
    return hashlib.sha256("".join(f"{p.name} {sha256(p)}\n" for p in paths).encode()).hexdigest()
