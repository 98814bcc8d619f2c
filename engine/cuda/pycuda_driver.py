"""CUDA through pycuda. These classes implement the protocols of `retinart.engine.cuda.api`.

The import makes nothing: `pycuda.autoinit` is not used. The calls follow pycuda's documentation
(documen.tician.de/pycuda/driver.html) and the source of its wrapper, version 2026.1.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from retinart.engine.errors import pip_command


class PyCuda:
    """The primary context of a GPU.

    A process retains it once and never releases it. pycuda's `detach` pushes the context on the
    thread and releases it without popping it; on any thread but the first it does neither.

    Args:
        index: the driver's number of the GPU.

    Raises:
        MissingDependency: pycuda is not installed, or was built for another driver.
    """

    name = "pycuda"

    def __init__(self, index: int = 0) -> None:
        self._pycuda = import_package(
            "pycuda.driver",
            package="pycuda",
            extra="pycuda",
            purpose="Running TensorRT engines",
            fix="Install NVIDIA's driver, and pycuda for this version of CUDA; or uninstall "
            f"pycuda, and run `{pip_command('cuda-bindings')}` in retinart's folder",
        )
        with _errors(self._pycuda), _retaining:
            self._context: Any = _primary_context(self._pycuda, index)
        self._driver = Driver()

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `Cuda`."""
        with _errors(self._pycuda):
            self._context.push()
        try:
            yield
        finally:
            with _errors(self._pycuda):
                self._pycuda.Context.pop()

    def device_memory(self, nbytes: int) -> _DeviceMemory:
        """See `Cuda`."""
        with _errors(self._pycuda):
            return _DeviceMemory(self._pycuda, self._pycuda.mem_alloc(nbytes), nbytes)

    def host_memory(self, nbytes: int) -> _HostMemory:
        """See `Cuda`."""
        with _errors(self._pycuda):
            return _HostMemory(self._pycuda, self._pycuda.pagelocked_empty(nbytes, np.uint8))

    def stream(self) -> _Stream:
        """See `Cuda`."""
        with _errors(self._pycuda):
            return _Stream(self._pycuda, self._driver)

    def kernel(self, ptx: bytes, name: str) -> Kernel:
        """See `Cuda`."""
        with _errors(self._pycuda):
            module = self._pycuda.module_from_buffer(ptx + b"\0")  # the driver reads a C string
            return _Kernel(self._pycuda, module.get_function(name))

    def memory(self) -> tuple[int, int]:
        """See `Cuda`."""
        with _errors(self._pycuda):
            free, total = self._pycuda.mem_get_info()
            return int(free), int(total)

    def close(self) -> None:
        """See `Cuda`. The context stays."""


_retaining = threading.Lock()


@functools.cache
def _primary_context(pycuda: Any, index: int) -> Any:
    """The context of a GPU. Callers hold `_retaining`, so it is made once."""
    pycuda.init()
    return pycuda.Device(index).retain_primary_context()


@contextmanager
def _errors(pycuda: Any) -> Iterator[None]:
    """Raise pycuda's errors, out of memory included, as CudaError."""
    try:
        yield
    except pycuda.Error as error:  # the base of all its errors
        name = type(error).__name__
        fix = LESS_MEMORY if "Memory" in name else ""
        raise CudaError(f"CUDA failed: {name}: {error}", fix=fix) from error


class _DeviceMemory:
    def __init__(self, pycuda: Any, allocation: Any, nbytes: int) -> None:
        self._pycuda, self._allocation = pycuda, allocation
        self.address, self.nbytes = int(allocation), nbytes

    def free(self) -> None:
        with _errors(self._pycuda):
            self._allocation.free()


class _HostMemory:
    def __init__(self, pycuda: Any, array: Bytes) -> None:
        self._pycuda, self.array = pycuda, array

    def free(self) -> None:
        base: Any = self.array.base  # pycuda's PagelockedHostAllocation
        with _errors(self._pycuda):
            base.free()


class _Event:
    def __init__(self, pycuda: Any, event: Any) -> None:
        self._pycuda, self.event = pycuda, event

    def ms_since(self, earlier: Event) -> float:
        assert isinstance(earlier, _Event)
        with _errors(self._pycuda):
            self.event.synchronize()
            return float(self.event.time_since(earlier.event))


class _Kernel:
    def __init__(self, pycuda: Any, function: Any) -> None:
        self._pycuda, self._function = pycuda, function

    def launch(
        self,
        stream: Stream,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[np.generic],
    ) -> None:
        assert isinstance(stream, _Stream)
        with _errors(self._pycuda):
            self._function(*arguments, grid=grid, block=(*block, 1), stream=stream.stream)


class _Stream:
    def __init__(self, pycuda: Any, driver: Driver) -> None:
        self._pycuda, self._driver = pycuda, driver
        self.stream: Any = pycuda.Stream(NON_BLOCKING)
        self.handle = int(self.stream.handle)

    def upload(self, address: int, source: Bytes) -> None:
        with _errors(self._pycuda):
            self._pycuda.memcpy_htod_async(address, source, self.stream)

    def download(self, target: Bytes, address: int) -> None:
        with _errors(self._pycuda):
            self._pycuda.memcpy_dtoh_async(target, address, self.stream)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        return self._driver.capture(self.handle, enqueue)

    def record(self) -> Event:
        with _errors(self._pycuda):
            event = self._pycuda.Event()
            event.record(self.stream)
            return _Event(self._pycuda, event)

    def synchronize(self) -> None:
        with _errors(self._pycuda):
            self.stream.synchronize()

    def free(self) -> None:
        self.stream = None  # pycuda destroys it with its object
