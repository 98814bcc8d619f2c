"""Models that OpenVINO compiled, kept between starts in a folder of bounded size."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from retinart.engine.common.cpu import cpu_name, instruction_sets
from retinart.engine.common.files import AtomicFile, sha256
from retinart.engine.common.user_cache import remove_oldest
from retinart.engine.errors import BadInput
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

    def get(self, shape: object, load: Callable[[Any], Any]) -> Any | None:
        """The compiled model of an input's shape, or None.

        Args:
            shape: plain JSON.
            load: makes a model of an `openvino.Tensor` with the file's bytes, which are mapped into
                memory and not copied; or of bytes, where OpenVINO maps no files.
        """
        path = self._path(shape)
        try:
            if sha256(path) == path.with_suffix(_SUM).read_text("ascii"):
                os.utime(path)  # the most recently used
                mapped = getattr(load_openvino(), "tensor_from_file", None)  # not in 2025.1
                return load(path.read_bytes() if mapped is None else mapped(path))
        except (OSError, BadInput):
            return None
        except (RuntimeError, UnicodeDecodeError):  # of another build, or damaged
            pass
        self._forget(path)
        return None

    def put(self, shape: object, compiled: Any) -> None:
        """Keep an `openvino.CompiledModel`, if its device can export it and the folder has room."""
        path = self._path(shape)
        with suppress(OSError, RuntimeError, BadInput):
            blob = compiled.export_model().getbuffer()
            if len(blob) > self._largest // 2:
                return
            file = AtomicFile(path, durable=False)
            try:
                file.temporary.write_bytes(blob)
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


@functools.cache
def _code() -> str:
    """A hash of this room's code, which changes graphs before they are compiled."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
