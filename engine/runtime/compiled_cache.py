"""Models that OpenVINO compiled, kept between starts in a folder of bounded size."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from retinart.engine.common.cpu import cpu_name, instruction_sets
from retinart.engine.common.files import AtomicFile, sha256
from retinart.engine.common.user_cache import remove_oldest
from retinart.engine.errors import BadInput
from retinart.engine.runtime.mapped_file import MappedFile
from retinart.engine.runtime.openvino_api import load_openvino

LARGEST_FOLDER = 2 << 30  # bytes; the least recently used models go first
_SUFFIX, _SUM = ".compiled", ".sha256"


class CompiledCache:
    """Compiled models by what they were made of.

    A cache that cannot be read or written is as good as empty: it never stops a start.

    Args:
        folder: of the models; it is made when the first one is kept.
        model: the ONNX file, which is read to tell it from others.
        how: what else a compiled model depends on, plain JSON: device, compute, configuration.
        largest: of all files of the folder together, in bytes.
    """

    def __init__(
        self, folder: Path, model: Path, how: object, *, largest: int = LARGEST_FOLDER
    ) -> None:
        self._folder, self._largest = folder, largest
        self._made_of = json.dumps(
            [sha256(model), how, load_openvino().__version__, _code(), cpu_name(),
             sorted(instruction_sets()), os.environ.get("ONEDNN_MAX_CPU_ISA", "")]
        )  # fmt: skip

    def get(self, shape: object, load: Callable[[MappedFile | bytes], Any]) -> Any | None:
        """The compiled model of an input's shape, or None.

        Args:
            shape: plain JSON.
            load: makes a model of a file that is mapped into memory; or of its bytes, where
                OpenVINO takes no mapped ones.
        """
        path = self._path(shape)
        try:
            if sha256(path) == path.with_suffix(_SUM).read_text("ascii"):
                os.utime(path)  # the most recently used
                takes_tensors = hasattr(load_openvino(), "tensor_from_file")  # not in 2025.1
                return load(MappedFile(path) if takes_tensors else path.read_bytes())
        except (OSError, BadInput):
            return None
        except (RuntimeError, ValueError):  # of another build, or damaged
            pass
        self._forget(path)
        return None

    def put(self, shape: object, compiled: Any) -> None:
        """Keep an `openvino.CompiledModel`, if its device can export it and the folder has room."""
        path = self._path(shape)
        with suppress(OSError, RuntimeError, BadInput):
            file = AtomicFile(path, durable=False)
            try:
                with file.temporary.open("wb") as opened:
                    stream = _Export(opened, self._largest // 2)
                    compiled.export_model(stream)
                if stream.failed:
                    return
                file.commit()
            finally:
                file.discard()
            path.with_suffix(_SUM).write_text(sha256(path), encoding="ascii")
            remove_oldest(self._folder, _SUFFIX, self._largest)

    def _path(self, shape: object) -> Path:
        text = json.dumps([self._made_of, shape])
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{_SUFFIX}"

    def _forget(self, path: Path) -> None:
        for name in (path, path.with_suffix(_SUM)):
            with suppress(OSError):
                name.unlink()


class _Export(io.BytesIO):
    """What OpenVINO writes a model to, piece by piece: a file, so that memory never holds it whole.

    OpenVINO takes a `BytesIO` only, and an error of Python in it would end the process.

    Attributes:
        failed: the disk has no room, or the model is too large; what is in the file is useless.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        super().__init__()
        self._file, self._most, self.failed = file, most, False

    def write(self, data: Any, /) -> int:
        try:
            if not self.failed:
                self._file.write(data)
                self.failed = self._file.tell() > self._most
        except OSError:
            self.failed = True
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError:
            self.failed = True


@functools.cache
def _code() -> str:
    """A hash of this room's code, which changes graphs before they are compiled."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
