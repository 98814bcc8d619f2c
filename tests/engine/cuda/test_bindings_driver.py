"""`engine/cuda/bindings_driver.py` through the real cuda-bindings, on a driver that is a CPU's.

What it does on that driver is in `tests/verify/test_cuda_checks.py`: the checks of a GPU.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest

from retinart.engine.cuda import open_gpu as opening
from retinart.engine.cuda.api import CudaError
from retinart.engine.cuda.bindings_driver import CudaBindings
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.cuda.open_gpu import installed_bindings, open_gpu
from retinart.engine.errors import MissingDependency
from stand_in_cuda import compile_driver, run_on
from support import Once

NEEDS = pytest.mark.skipif(
    "cuda-bindings" not in installed_bindings(), reason="cuda-bindings is not installed"
)

ERRORS = """
import warnings
import numpy as np
from retinart.engine.cuda.api import CudaError
from retinart.engine.cuda.bindings_driver import CudaBindings

def said(work, *arguments):
    try:
        work(*arguments)
    except CudaError as error:
        return str(error)
    return "no error"

gpu = CudaBindings()
print(said(gpu.device_memory, 10))
with gpu.current():
    print(said(gpu.device_memory, 1 << 40))
    print(said(gpu.kernel, b"no ptx", "name"))
    memory, stream = gpu.device_memory(10), gpu.stream()
    print(said(stream.upload, memory.address, np.zeros(10, np.uint8)))
    memory.free()
    print(said(memory.free))
    event = stream.record()
    stream.free()
    print(said(stream.synchronize))
    from cuda.bindings import driver
    gpu._calls.driver.cuCtxSetLimit  # a name that the package has and this driver lacks
    print(said(gpu._calls, "cuCtxGetLimit", driver.CUlimit.CU_LIMIT_STACK_SIZE))
"""


@NEEDS
def test_errors_of_the_driver_are_ours(once: Once) -> None:
    done = run_on(once("driver", compile_driver), "-c", ERRORS)
    assert (done.returncode, done.stderr) == (0, "")
    outside, memory, ptx, pageable, twice, gone, missing = done.stdout.splitlines()
    assert outside == "CUDA failed: cuMemAlloc: CUDA_ERROR_INVALID_CONTEXT (201)."
    assert "CUDA_ERROR_OUT_OF_MEMORY (2). Take a smaller batch" in memory
    assert "cuModuleLoadData: CUDA_ERROR_INVALID_PTX (218)" in ptx
    assert "cuMemcpyHtoDAsync: CUDA_ERROR_INVALID_VALUE (1)" in pageable
    assert "cuMemFree: CUDA_ERROR_INVALID_VALUE (1)" in twice
    assert "cuStreamSynchronize: CUDA_ERROR_INVALID_HANDLE (400)" in gone
    assert missing.startswith("CUDA failed: cuCtxGetLimit: ") and "not found" in missing


@NEEDS
def test_a_machine_without_a_driver() -> None:
    if find_gpus():
        pytest.skip("there is a GPU here")
    with pytest.raises(CudaError, match=r"libcuda\.so\.1"):
        CudaBindings()


def test_pycuda_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = set[str]()

    def find(name: str) -> Any:
        if name not in there and "." in name:
            raise ModuleNotFoundError(name)  # as for a module of a package that is not there
        return ModuleType(name) if name in there else None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    doubles = {n: (module, lambda i, n=n: (n, i)) for n, (module, _) in opening._BINDINGS.items()}
    monkeypatch.setattr(opening, "_BINDINGS", doubles)
    with pytest.raises(MissingDependency) as caught:
        open_gpu()
    assert ".[cuda-bindings]" in str(caught.value) and "tensorrt" not in caught.value.fix
    there.add("cuda.bindings")
    opened: list[Any] = [open_gpu(3)]
    there.add("pycuda")
    opened += [open_gpu(2), open_gpu(1, "cuda-bindings")]
    assert opened == [("cuda-bindings", 3), ("pycuda", 2), ("cuda-bindings", 1)]


@pytest.mark.parametrize(("binding", "package"), [("pycuda", "pycuda"), ("cuda-bindings", "cuda")])
def test_a_binding_that_is_missing(
    binding: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"needs the package {binding}") as caught:
        open_gpu(0, binding)
    assert f".[{binding}]" in caught.value.fix  # not an extra that brings TensorRT
