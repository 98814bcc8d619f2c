"""CUDA through NVIDIA's cuda-bindings, which has wheels: `retinart.engine.cuda.api` over it.

The import makes nothing, and needs no driver. The calls follow the documentation of
`cuda.bindings.driver` (nvidia.github.io/cuda-python/cuda-bindings). Each returns a tuple, whose
first item is its CUresult. Graphs go through `graphs.py`, as with pycuda.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinart.engine.common.packages import import_package
from retinart.engine.cuda.api import (
    LESS_MEMORY,
    NON_BLOCKING,
    Bytes,
    CudaError,
    Event,
    Graph,
    Kernel,
    Stream,
)
from retinart.engine.cuda.graphs import Driver


class CudaBindings:
    """The primary context of a GPU. A process retains it once and never releases it.

    Args:
        index: the driver's number of the GPU.

    Raises:
        MissingDependency: cuda-bindings is not installed, or cannot be loaded.
        CudaError: there is no driver, or it has no such GPU.
    """

    name = "cuda-bindings"

    def __init__(self, index: int = 0) -> None:
        driver = import_package(
            "cuda.bindings.driver",
            package="cuda-bindings",
            extra="cuda-bindings",
            purpose="Running TensorRT engines",
            fix="Install it again, in the version of your CUDA",
        )
        self._graphs = Driver()  # first, because it tells of a missing driver in one line
        self._calls = _Calls(driver)
        with _retaining:
            self._device, self._context = _primary_context(self._calls, index)

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `Cuda`."""
        self._calls("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._calls("cuCtxPopCurrent")

    def device_memory(self, nbytes: int) -> _DeviceMemory:
        """See `Cuda`."""
        return _DeviceMemory(self._calls, nbytes)

    def host_memory(self, nbytes: int) -> _HostMemory:
        """See `Cuda`."""
        return _HostMemory(self._calls, nbytes)

    def stream(self) -> _Stream:
        """See `Cuda`."""
        return _Stream(self._calls, self._graphs)

    def kernel(self, ptx: bytes, name: str) -> Kernel:
        """See `Cuda`. A process loads each once, and keeps it as it keeps the context."""
        with _retaining:
            return _Kernel(self._calls, _function(self._calls, self._device, ptx, name))

    def memory(self) -> tuple[int, int]:
        """See `Cuda`."""
        free, total = self._calls("cuMemGetInfo")
        return int(free), int(total)

    def close(self) -> None:
        """See `Cuda`. The context stays."""


@dataclass(frozen=True)
class _Calls:
    """Calls functions of `cuda.bindings.driver` by name, and raises what fails as CudaError."""

    driver: Any

    def __call__(self, function: str, *arguments: Any) -> Any:
        """The one result, a list of several, or None."""
        try:
            result, *values = getattr(self.driver, function)(*arguments)
        except RuntimeError as error:  # the driver is older, and lacks the function
            raise CudaError(f"CUDA failed: {function}: {error}") from error
        if int(result):
            fix = LESS_MEMORY if result.name == "CUDA_ERROR_OUT_OF_MEMORY" else ""
            raise CudaError(f"CUDA failed: {function}: {result.name} ({int(result)})", fix=fix)
        return values[0] if len(values) == 1 else values or None


_retaining = threading.Lock()


@functools.cache
def _primary_context(calls: _Calls, index: int) -> tuple[int, Any]:
    """A GPU's number and its context. Callers hold `_retaining`, so it is made once."""
    calls("cuInit", 0)
    return index, calls("cuDevicePrimaryCtxRetain", calls("cuDeviceGet", index))


@functools.cache
def _function(calls: _Calls, device: int, ptx: bytes, name: str) -> Any:
    """A kernel in the context of a GPU. Callers hold `_retaining`, and have it current."""
    module = calls("cuModuleLoadData", ptx + b"\0")  # the driver reads a C string
    return calls("cuModuleGetFunction", module, name.encode())


class _DeviceMemory:
    def __init__(self, calls: _Calls, nbytes: int) -> None:
        self._calls = calls
        self.address, self.nbytes = int(calls("cuMemAlloc", nbytes)), nbytes

    def free(self) -> None:
        self._calls("cuMemFree", self.address)


class _HostMemory:
    def __init__(self, calls: _Calls, nbytes: int) -> None:
        self._calls, self._address = calls, int(calls("cuMemHostAlloc", nbytes, 0))
        memory = (ctypes.c_uint8 * nbytes).from_address(self._address)
        self.array: Bytes = np.ctypeslib.as_array(memory)

    def free(self) -> None:
        self._calls("cuMemFreeHost", self._address)


class _Event:
    """Use and drop it inside of `current`."""

    def __init__(self, calls: _Calls) -> None:
        self._calls, self.event = calls, calls("cuEventCreate", 0)

    def ms_since(self, earlier: Event) -> float:
        assert isinstance(earlier, _Event)
        self._calls("cuEventSynchronize", self.event)
        return float(self._calls("cuEventElapsedTime", earlier.event, self.event))

    def __del__(self) -> None:
        if hasattr(self, "event"):
            with contextlib.suppress(CudaError):
                self._calls("cuEventDestroy", self.event)


class _Kernel:
    def __init__(self, calls: _Calls, function: Any) -> None:
        self._calls, self._function = calls, function

    def launch(
        self,
        stream: Stream,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[np.generic],
    ) -> None:
        values = [np.array(value) for value in arguments]
        pointers = np.array([value.ctypes.data for value in values], np.uint64)
        shape, shared_bytes, extra = (*grid, 1, *block, 1), 0, 0
        self._calls(
            "cuLaunchKernel", self._function, *shape, shared_bytes, stream.handle,
            pointers.ctypes.data, extra,
        )  # fmt: skip


class _Stream:
    def __init__(self, calls: _Calls, graphs: Driver) -> None:
        self._calls, self._graphs = calls, graphs
        self.handle = int(calls("cuStreamCreate", NON_BLOCKING))

    def upload(self, address: int, source: Bytes) -> None:
        where = (address, source.ctypes.data, source.nbytes)
        self._calls("cuMemcpyHtoDAsync", *where, self.handle)

    def download(self, target: Bytes, address: int) -> None:
        where = (target.ctypes.data, address, target.nbytes)
        self._calls("cuMemcpyDtoHAsync", *where, self.handle)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        return self._graphs.capture(self.handle, enqueue)

    def record(self) -> Event:
        event = _Event(self._calls)
        self._calls("cuEventRecord", event.event, self.handle)
        return event

    def synchronize(self) -> None:
        self._calls("cuStreamSynchronize", self.handle)

    def free(self) -> None:
        self._calls("cuStreamDestroy", self.handle)
