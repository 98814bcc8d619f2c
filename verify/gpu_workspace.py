"""A place to work on a GPU: a stream, and memory on both of its sides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from retinart.engine.cuda.api import Bytes, Cuda
from retinart.engine.cuda.open_gpu import Binding, open_gpu


class Desk:
    """A stream and memory on both of its sides, freed in the end. Use it inside of `current`."""

    def __init__(self, cuda: Cuda, stack: ExitStack) -> None:
        self.cuda, self._stack = cuda, stack
        self.stream = cuda.stream()
        stack.callback(self.stream.free)

    def device(self, nbytes: int) -> int:
        """The address of new device memory."""
        memory = self.cuda.device_memory(nbytes)
        self._stack.callback(memory.free)
        return memory.address

    def host(self, nbytes: int) -> Bytes:
        """New page-locked memory."""
        memory = self.cuda.host_memory(nbytes)
        self._stack.callback(memory.free)
        return memory.array

    def send(self, array: npt.NDArray[Any]) -> int:
        """The address that an array is copied to, once the stream gets there."""
        host, address = self.host(array.nbytes), self.device(array.nbytes)
        host[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.stream.upload(address, host)
        return address

    def fetch(self, address: int, nbytes: int) -> Bytes:
        """What is at an address when all work is done."""
        host = self.host(nbytes)
        self.stream.download(host, address)
        self.stream.synchronize()
        return host.copy()


@contextmanager
def desk(binding: Binding) -> Iterator[Desk]:
    """A desk on the first GPU, through a binding."""
    cuda = open_gpu(0, binding)
    try:
        with cuda.current(), ExitStack() as stack:
            yield Desk(cuda, stack)
    finally:
        cuda.close()


def some_bytes(size: int, seed: int = 0) -> Bytes:
    """Bytes of any value but zero."""
    return np.random.default_rng(seed).integers(1, 256, size, np.uint8)
