"""Files that are mapped into memory: their pages come as they are read, and go when told to."""

from __future__ import annotations

import ctypes
import mmap
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_LARGE = 1 << 16  # bytes of a constant that is moved
_ALIGNED = 64  # bytes: a line of the cache, and a register of AVX512
_TYPES = ("f32", "f16", "i8", "u8")
_SECONDS = 0.01  # between two times that pages are dropped


class MappedFile:
    """A file's bytes. What is written to them is not written to the file.

    OpenVINO keeps pointers into them, so a `MappedFile` must live as long as what was made of it.

    Args:
        file: the file, open or by its path. It may be removed or replaced afterwards, but not cut.

    Raises:
        OSError, ValueError: it cannot be mapped, or is empty.
    """

    def __init__(self, file: Path | BinaryIO) -> None:
        if isinstance(file, Path):
            with file.open("rb") as opened:
                self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        else:
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


def move_constants(model: Any, openvino: Any) -> MappedFile | None:
    """Move the large constants of an `openvino.Model` into a temporary file that is mapped.

    A compiled model keeps the constants that it was made of, beside its own layout of them.

    Returns:
        The file, which has no name and ends with the process; None if there are no such constants,
        or no room for them. The model is changed in place.
    """
    found = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    large = [op for op in found if _type(op) in _TYPES and op.get_data().nbytes >= _LARGE]
    if not large:
        return None
    places = list[int]()
    try:
        with tempfile.TemporaryFile() as file:
            for op in large:
                file.seek(-file.tell() % _ALIGNED, 1)
                places.append(file.tell())
                file.write(np.ascontiguousarray(op.get_data()).data)
            file.flush()
            mapped = MappedFile(file)
    except OSError:
        return None
    for op, place in zip(large, places, strict=True):
        old = op.get_data()
        values = mapped.array[place : place + old.nbytes].view(old.dtype).reshape(old.shape)
        new = openvino.opset13.constant(values, shared_memory=True)
        new.set_friendly_name(op.get_friendly_name())
        for target in op.output(0).get_target_inputs():
            target.replace_source_output(new.output(0))
    del op, old, large, found
    give_back()
    return mapped


def give_back() -> None:
    """Give the memory that was freed back to the system; glibc keeps most of it for later."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _type(constant: Any) -> str:
    name: str = constant.get_element_type().get_type_name()
    return name
