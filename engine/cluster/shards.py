"""The finished shards of a job, on disk: a killed job is taken up again from them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retinart.engine.common.files import atomic_path, write_json
from retinart.engine.common.folders import make_folder
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.picture_result import PictureResult

PICTURES = 64  # of a shard
_JOB = "job.json"


class FinishedShards:
    """A folder with a file for each shard that is finished.

    Args:
        folder: where they are; `remove` deletes it.
        job: what says that shards on disk are of this job: plain JSON types.
        overwrite: delete the shards of another job.

    Raises:
        BadInput: the folder holds shards of another job.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self._folder = folder
        text = json.dumps(job, sort_keys=True)
        if folder.exists() and not self._holds(text):
            if not overwrite:
                raise BadInput(
                    f"{folder} holds the finished part of another job",
                    why="its model, options or pictures differ",
                    fix="Give the same ones to go on, choose another `out`, or begin anew with "
                    "`overwrite`",
                )
            shutil.rmtree(folder)
        self._job = dict(job)

    def __contains__(self, number: int) -> bool:
        return self._path(number).exists()

    def write(self, number: int, results: Sequence[PictureResult]) -> None:
        """Keep a shard; its file gets its name when it is whole.

        Raises:
            BadInput: it cannot be written.
        """
        if not (self._folder / _JOB).exists():  # a job that fails before leaves nothing
            make_folder(self._folder)
            write_json(self._folder / _JOB, self._job)
        lines = [json.dumps(result.to_json()) + "\n" for result in results]
        with atomic_path(self._path(number)) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")

    def read(self, numbers: Iterable[int]) -> Iterator[PictureResult]:
        """The results of shards, one after the other."""
        for number in numbers:
            with self._path(number).open(encoding="utf-8") as file:
                for line in file:
                    yield PictureResult.from_json(json.loads(line))

    def remove(self) -> None:
        """Delete the shards."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.jsonl"

    def _holds(self, job: str) -> bool:
        try:
            there = (self._folder / _JOB).read_text(encoding="utf-8")
            return json.dumps(json.loads(there), sort_keys=True) == job
        except (OSError, ValueError):
            return self._folder.is_dir() and not any(self._folder.iterdir())


def digest_of(paths: Iterable[Path]) -> str:
    """A digest of names, sizes and times of files: another picture under a name changes it."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
            digest.update(
                f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(
                    "utf-8", "surrogateescape"
                )
            )
        except OSError:
            digest.update(f"{path}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
