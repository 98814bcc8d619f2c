"""What the engine runtime needs of CUDA, in a few methods, so that any binding can be behind it.

Two are: `pycuda_driver.py` and `bindings_driver.py`; `open_gpu.py` chooses one. Memory is bytes.
The caller frees the memory, streams and graphs that it asks for. Call everything but `current` and
`close` inside of `current`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import RetinartError

Bytes = npt.NDArray[np.uint8]
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: independent of work on the legacy stream
LESS_MEMORY = "Take a smaller batch or fewer contexts, or end what else uses the GPU's memory"


class DeviceMemory(Protocol):
    """Memory on the GPU; `address` is aligned to 256 bytes."""

    address: int
    nbytes: int

    def free(self) -> None: ...


class HostMemory(Protocol):
    """Page-locked memory on the host: an array (nbytes,) uint8, which is invalid after `free`."""

    array: Bytes

    def free(self) -> None: ...


class Graph(Protocol):
    """Captured work. It can be launched any number of times, on the stream that it was made on."""

    def launch(self) -> None: ...
    def free(self) -> None: ...


class Event(Protocol):
    """A moment on a stream."""

    def ms_since(self, earlier: Event) -> float:
        """Milliseconds of the GPU's own clock; waits until both have passed."""


class Kernel(Protocol):
    """A compiled function."""

    def launch(
        self,
        stream: Stream,
        grid: tuple[int, int],
        block: tuple[int, int],
        arguments: Sequence[np.generic],
    ) -> None: ...


class Stream(Protocol):
    """A queue of work. Enqueued work may run at any time until `synchronize` returns.

    The stream does not wait for the legacy stream, and the legacy stream does not wait for it.
    """

    handle: int

    def upload(self, address: int, source: Bytes) -> None:
        """Copy page-locked memory to the GPU; the array must live until it is done."""

    def download(self, target: Bytes, address: int) -> None:
        """Copy from the GPU to page-locked memory; the array must live until it is done."""

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """A graph of the work that `enqueue` puts on this stream. The work does not run.

        Raises:
            CudaError: some of the work cannot be captured. The stream can still be used.
        """

    def record(self) -> Event: ...
    def synchronize(self) -> None: ...
    def free(self) -> None: ...


class Cuda(Protocol):
    """One GPU, through its primary context, which PyTorch and the CUDA runtime share.

    Attributes:
        name: of the Python package behind it.
    """

    name: str

    def current(self) -> AbstractContextManager[None]:
        """Make the context current on this thread inside a `with` block; blocks can be nested."""

    def device_memory(self, nbytes: int) -> DeviceMemory: ...
    def host_memory(self, nbytes: int) -> HostMemory: ...
    def stream(self) -> Stream: ...
    def kernel(self, ptx: bytes, name: str) -> Kernel:
        """Load PTX, which the driver compiles for this GPU."""

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the GPU."""

    def close(self) -> None:
        """End this use, after everything else is freed. The context itself may stay."""


class CudaError(RetinartError):
    """A call of CUDA failed."""
