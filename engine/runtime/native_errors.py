"""Errors of the libraries that read model files, as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retinart.engine.errors import BadInput, RetinartError
from retinart.engine.model.info import REEXPORT
from retinart.engine.runtime.runner import last_line

_LIBRARIES = frozenset(("google", "onnx", "onnxruntime", "openvino"))


@contextmanager
def explained(library: str, path: Path, verb: str) -> Iterator[None]:
    """An error of a runtime becomes a BadInput that names the file.

    Args:
        library: its name for people.
        path: the model's file.
        verb: what it cannot do with it, such as "load".

    Raises:
        BadInput: the library raised RuntimeError, which OpenVINO does, or an exception of its own.
    """
    try:
        yield
    except RetinartError:
        raise
    except Exception as error:
        package = type(error).__module__.partition(".")[0]
        if type(error) is not RuntimeError and package not in _LIBRARIES:
            raise
        raise BadInput(
            f"{library} cannot {verb} {path}", why=last_line(error), fix=REEXPORT
        ) from error
