"""Steps of a long job, each kept under the hash of what it was made from, our own code included."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retinart.calib.resume import Saved
from retinart.engine.common.files import sha256
from retinart.engine.common.progress import Progress

# The sources that make and run models: whole packages, and of training the network alone.
# What only draws a page is left out, so that a page can be drawn again without its measurement.
_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("engine", "export", "calib")
NETWORK = "train/model"
_DRAWS = ("engine/common/html_page.py", "calib/report.py")
# and those that time them
TIMING = (
    "latency/run", "peers/find", "peers/torch_model", "peers/torchvision_model",
    "peers/torchvision_shim", "timing/limits", "timing/machine", "timing/statistics",
    "timing/turns", "timing/workers",
)  # fmt: skip


class Steps:
    """Makes each step once; a job that was stopped, or asks for more, makes what is left.

    A step of other code, or of another version of what it runs on, is made again.

    Args:
        path: the file that keeps what the steps gave.
        key: of the job; what another one left there is not taken up.

    Attributes:
        taken_over: steps that had been made before.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._saved = Saved(path, key=key)
        self._versions = {n: version(n) for n in ("retinart", "openvino", "numpy")}
        self._versions["code"] = code_of_models()
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

    def kept(self, what: str) -> Iterator[Any]:
        """What all steps of a kind gave, whatever they were made from, the oldest first."""
        for key, found in self._saved.items():
            if key.startswith(f"{what} "):
                yield found


def code_of_models(root: Path = _ROOT) -> str:
    """A hash of the sources that make and run models.

    Args:
        root: folder of our packages.
    """
    found = [path for package in (*_PACKAGES, NETWORK) for path in (root / package).rglob("*.*")]
    drawing = [root / name for name in _DRAWS]
    paths = [p for p in found if p.suffix in (".py", ".cu") and p not in drawing]
    return hash_of(sorted(paths))


def code_of_timing(root: Path = _ROOT) -> str:
    """A hash of the sources that time them."""
    return hash_of([root / "benchmarks" / f"{name}.py" for name in TIMING])


def hash_of(paths: Sequence[Path]) -> str:
    """Of the files' names and contents."""
    return hashlib.sha256("".join(f"{p.name} {sha256(p)}\n" for p in paths).encode()).hexdigest()
