"""CUDA through pycuda. See `retinart.engine.cuda`, whose protocols these classes have.

Nothing is made at import: no `pycuda.autoinit`. pycuda is looked up in its driver documentation
(documen.tician.de/pycuda/driver.html) and its wrapper's source, version 2026.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from retinart.engine.cuda import Bytes, CudaError, Event, Graph, Kernel, Stream
from retinart.engine.cuda_graphs import Driver
from retinart.engine.errors import MissingDependency


class PyCuda:
    """The primary context of a GPU.

    Args:
        index: the driver's number of the GPU.

    Raises:
        MissingDependency: pycuda is not installed, or was built for another driver.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            import pycuda.driver
        except ModuleNotFoundError as error:
            raise MissingDependency.package(
                "pycuda", "tensorrt", "Running TensorRT engines"
            ) from error
        except ImportError as error:  # it is there, libcuda or a library of its own is not
            raise MissingDependency(
                "pycuda cannot be loaded",
                why=str(error),
                fix="Install NVIDIA's driver, and pycuda for this version of CUDA",
            ) from error
        self._pycuda: Any = pycuda.driver
        self._pycuda.init()
        self._context: Any = self._pycuda.Device(index).retain_primary_context()
        self._driver = Driver()

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `Cuda`."""
        self._context.push()
        try:
            yield
        finally:
            self._pycuda.Context.pop()

    def device_memory(self, nbytes: int) -> _DeviceMemory:
        """See `Cuda`."""
        return _DeviceMemory(self._pycuda.mem_alloc(nbytes), nbytes)

    def host_memory(self, nbytes: int) -> _HostMemory:
        """See `Cuda`."""
        return _HostMemory(self._pycuda.pagelocked_empty(nbytes, np.uint8))

    def stream(self) -> _Stream:
        """See `Cuda`."""
        return _Stream(self._pycuda, self._driver)

    def kernel(self, source: str, name: str) -> Kernel:
        """See `Cuda`. pycuda calls nvcc, and keeps what it compiled for the next start."""
        from pycuda import compiler

        try:
            # no fused multiply-add: what is rounded is then what NumPy rounds
            module = compiler.SourceModule(source, options=["-fmad=false"], no_extern_c=True)
        except OSError as error:  # nvcc was not found
            raise MissingDependency(
                "Resizing on the GPU needs NVIDIA's compiler nvcc, which was not found",
                fix="Install CUDA's nvcc and put it on PATH, or resize on the CPU",
            ) from error
        except self._pycuda.CompileError as error:
            raise CudaError(str(error)) from error
        return _Kernel(module.get_function(name))

    def close(self) -> None:
        """See `Cuda`."""
        self._context.detach()


class _DeviceMemory:
    def __init__(self, allocation: Any, nbytes: int) -> None:
        self._allocation = allocation
        self.address, self.nbytes = int(allocation), nbytes

    def free(self) -> None:
        self._allocation.free()


class _HostMemory:
    def __init__(self, array: Bytes) -> None:
        self.array = array

    def free(self) -> None:
        base: Any = self.array.base  # pycuda's PagelockedHostAllocation
        base.free()


class _Event:
    def __init__(self, event: Any) -> None:
        self.event = event

    def ms_since(self, earlier: Event) -> float:
        assert isinstance(earlier, _Event)
        self.event.synchronize()
        return float(self.event.time_since(earlier.event))


class _Kernel:
    def __init__(self, function: Any) -> None:
        self._function = function

    def launch(
        self,
        stream: Stream,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[np.generic],
    ) -> None:
        assert isinstance(stream, _Stream)
        self._function(*arguments, grid=grid, block=(*block, 1), stream=stream.stream)


class _Stream:
    def __init__(self, pycuda: Any, driver: Driver) -> None:
        self._pycuda, self._driver = pycuda, driver
        self.stream: Any = pycuda.Stream()
        self.handle = int(self.stream.handle)

    def upload(self, address: int, source: Bytes) -> None:
        self._pycuda.memcpy_htod_async(address, source, self.stream)

    def download(self, target: Bytes, address: int) -> None:
        self._pycuda.memcpy_dtoh_async(target, address, self.stream)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        return self._driver.capture(self.handle, enqueue)

    def record(self) -> Event:
        event = self._pycuda.Event()
        event.record(self.stream)
        return _Event(event)

    def synchronize(self) -> None:
        self.stream.synchronize()

    def free(self) -> None:
        self.stream = None  # pycuda destroys it with its object
