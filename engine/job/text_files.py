"""Text files that a job writes: JSON lines as they come, and forms that are whole at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from retinart.engine.common.files import AtomicFile
from retinart.engine.common.leftovers import same_file
from retinart.engine.errors import BadInput
from retinart.engine.job.records import Record, Records


class LineFile:
    """A text file that grows by whole lines, each there to read as soon as it is written.

    It gets its name, and replaces an older file, with the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._atomic = AtomicFile(path)
        self._file = self._atomic.temporary.open("wb", buffering=0)
        self._length = 0

    def write(self, text: str) -> None:
        """Add lines; after an error, such as a full disk, those before are whole.

        Raises:
            OSError: they cannot be written.
        """
        # a file's name need not be UTF-8: its bytes go through as they are
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(self._length)
            self._file.seek(self._length)
            raise
        if not self._length:
            self._atomic.commit()
        self._length = self._file.tell()

    def close(self) -> None:
        """Close the file; one without a line is not kept."""
        if not self._file.closed:
            with suppress(OSError):
                os.fsync(self._file.fileno())
        self._file.close()
        self._atomic.discard()

    @property
    def there(self) -> bool:
        """Whether the open file still has its name."""
        return same_file(self._file.fileno(), self.path)

    def check_there(self) -> None:
        """See that what was written can still be found.

        Raises:
            BadInput: the file was deleted or replaced.
        """
        if not self.there:
            raise deleted(self.path)


def deleted(path: Path) -> BadInput:
    """The error where an output has gone."""
    return BadInput(
        f"cannot go on writing {path}",
        why="it was deleted or replaced while the job ran",
        fix="Run the job again, and leave its folder alone until it has ended",
    )


class RecordFile:
    """Records in a text file that gets its name when it is whole.

    Args:
        path: where to write.
        make: makes the writer of an open file.
    """

    def __init__(self, path: Path, make: Callable[[TextIO], Records]) -> None:
        self.path = path
        self._atomic = AtomicFile(path)
        self.temporary = self._atomic.temporary
        self._file = self.temporary.open(
            "w", encoding="utf-8", errors="surrogateescape", newline=""
        )
        self._records = make(self._file)

    def write(self, record: Record) -> None:
        """Add a record."""
        self._records.write(record)

    def commit(self) -> None:
        """End the file and give it its name; after an error it is deleted."""
        try:
            self._records.close()
            self._file.close()
            self._atomic.commit()
        finally:
            self.discard()

    def discard(self) -> None:
        """Delete the file. After `commit` it stays."""
        with suppress(OSError):  # what is in its buffer may not fit on the disk
            self._file.close()
        self._atomic.discard()
