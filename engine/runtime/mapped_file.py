"""Files that are mapped into memory: their pages come as they are read, and go when told to."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_SECONDS = 0.01  # between two times that pages are dropped


class MappedFile:
    """A file's bytes. What is written to them is not written to the file.

    OpenVINO keeps pointers into them, so a `MappedFile` must live as long as what was made of it.

    Args:
        path: the file, which may be removed or replaced afterwards, but not cut.

    Raises:
        OSError, ValueError: it cannot be mapped, or is empty.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """(bytes,) uint8."""
        return np.frombuffer(self._map, np.uint8)

    def tensor(self, openvino: Any) -> Any:
        """An `openvino.Tensor` of the bytes, which are not copied."""
        return openvino.Tensor(self.array, shared_memory=True)

    def drop(self) -> None:
        """Give the pages back. Those that are read again come from the file again."""
        advice = getattr(mmap, "MADV_DONTNEED", None)  # not on Windows
        if advice is not None:
            self._map.madvise(advice)

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """A block in which read pages do not stay for long, and after which none are left.

        Compiling reads each weight once and keeps it in another layout.
        """
        ended = threading.Event()

        def drop() -> None:
            while not ended.wait(_SECONDS):
                self.drop()

        thread = threading.Thread(target=drop, name="retinart-drop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.drop()
