"""Opens a GPU through the Python binding of CUDA that is installed: pycuda, or cuda-bindings."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Literal

from retinart.engine.cuda.api import Cuda
from retinart.engine.cuda.bindings_driver import CudaBindings
from retinart.engine.cuda.pycuda_driver import PyCuda
from retinart.engine.errors import MissingDependency, pip_command

Binding = Literal["pycuda", "cuda-bindings"]
# The first one that is installed is taken. Neither import needs its package.
_BINDINGS: dict[Binding, tuple[str, Callable[[int], Cuda]]] = {
    "pycuda": ("pycuda", PyCuda),
    "cuda-bindings": ("cuda.bindings", CudaBindings),
}


def installed_bindings() -> list[Binding]:
    """The bindings that are installed, the one that is taken first."""
    return [name for name, (module, _) in _BINDINGS.items() if _there(module)]


def open_gpu(index: int = 0, binding: Binding | None = None) -> Cuda:
    """A GPU, through a binding or through the first one that is installed.

    Args:
        index: the driver's number of the GPU.
        binding: by its name; None takes pycuda where it is installed, else cuda-bindings.

    Raises:
        MissingDependency: none is installed, or the one that is cannot be loaded.
        CudaError: the driver has no such GPU.
    """
    here = [binding] if binding is not None else installed_bindings()
    if not here:
        raise MissingDependency(
            "Running TensorRT engines needs a Python package for CUDA, and none is installed",
            fix=f"Install cuda-bindings with `{pip_command('cuda-bindings')}` in retinart's folder,"
            f" or pycuda, which is built from source, with `{pip_command('pycuda')}`",
        )
    return _BINDINGS[here[0]][1](index)


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it lies in
        return False
