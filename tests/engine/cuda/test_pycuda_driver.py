"""What `engine/cuda/pycuda_driver.py` asks of pycuda, recorded by a double of pycuda."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retinart.engine.cuda import pycuda_driver
from retinart.engine.cuda.api import CudaError
from retinart.engine.cuda.graphs import Driver
from retinart.engine.cuda.pycuda_driver import PyCuda


class Error(Exception):
    """The base of pycuda's errors."""


class OutOfMemory(Error):
    """pycuda's MemoryError, which derives from its own base and not from Python's."""


class PyCudaDouble(ModuleType):
    """pycuda.driver, as far as it is used: records calls, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.log: list[str] = []
        self.failing = ""
        self.Error = Error
        self.Context = SimpleNamespace(pop=lambda: self.call("pop"))

    def call(self, name: str, value: Any = None) -> Any:
        self.log.append(name)
        if name == self.failing:
            raise OutOfMemory(f"{name} failed: out of memory")
        return value

    def init(self) -> None:
        self.call("init")

    def Device(self, index: int) -> Any:
        context = SimpleNamespace(
            push=lambda: self.call("push"), detach=lambda: self.call("detach")
        )
        return SimpleNamespace(retain_primary_context=lambda: self.call(f"retain {index}", context))

    def mem_alloc(self, nbytes: int) -> int:
        return int(self.call("mem_alloc", 4096))

    def pagelocked_empty(self, shape: int, dtype: Any) -> Any:
        return self.call("pagelocked_empty", np.empty(shape, dtype))

    def Stream(self, flags: int = 0) -> Any:
        return self.call(
            f"Stream {flags}",
            SimpleNamespace(handle=77, synchronize=lambda: self.call("synchronize")),
        )

    def Event(self) -> Any:
        return self.call("Event", SimpleNamespace(record=lambda stream: self.call("record")))

    def memcpy_htod_async(self, target: int, source: Any, stream: Any) -> None:
        self.call("htod")

    def memcpy_dtoh_async(self, target: Any, source: int, stream: Any) -> None:
        self.call("dtoh")


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> PyCudaDouble:
    driver = PyCudaDouble()
    package = ModuleType("pycuda")
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(pycuda_driver, "Driver", lambda: SimpleNamespace(capture=lambda *_: None))
    return driver


FAILING: dict[str, Callable[[PyCuda, Any], object]] = {
    "mem_alloc": lambda cuda, stream: cuda.device_memory(10),
    "pagelocked_empty": lambda cuda, stream: cuda.host_memory(10),
    "htod": lambda cuda, stream: stream.upload(0, np.empty(1, np.uint8)),
    "dtoh": lambda cuda, stream: stream.download(np.empty(1, np.uint8), 0),
    "synchronize": lambda cuda, stream: stream.synchronize(),
    "Event": lambda cuda, stream: stream.record(),
    "record": lambda cuda, stream: stream.record(),
    "push": lambda cuda, stream: cuda.current().__enter__(),
}


@pytest.mark.parametrize("call", FAILING)
def test_errors_of_pycuda_are_ours(double: PyCudaDouble, call: str) -> None:
    cuda = PyCuda()
    with cuda.current():
        stream = cuda.stream()
    double.failing = call
    message = f"OutOfMemory: {call} failed: out of memory. Take a smaller batch"
    with pytest.raises(CudaError, match=message):
        FAILING[call](cuda, stream)


def test_errors_of_the_start(double: PyCudaDouble) -> None:
    double.failing = "init"
    with pytest.raises(CudaError, match="init failed"):
        PyCuda()


def test_nothing_is_collected_during_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a collection frees of CUDA's on that thread would break the capture."""
    driver, during = object.__new__(Driver), list[bool]()
    monkeypatch.setattr(driver, "call", lambda *_: during.append(gc.isenabled()))
    driver.capture(1, lambda: during.append(gc.isenabled()))
    begin, enqueued, end, *_ = during
    assert (begin, enqueued, end, gc.isenabled()) == (False, False, False, True)


def test_a_kernel_is_loaded_as_a_c_string(
    double: PyCudaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No compiler takes part; and the driver reads PTX up to a zero byte."""
    loaded = list[bytes]()

    def load(ptx: bytes) -> Any:
        loaded.append(ptx)
        return SimpleNamespace(get_function=lambda name: name)

    monkeypatch.setattr(double, "module_from_buffer", load, raising=False)
    PyCuda().kernel(b"ptx", "name")
    assert loaded == [b"ptx\0"]


def test_streams_do_not_wait_for_the_legacy_stream(double: PyCudaDouble) -> None:
    """On a stream that does, a capture collides with other uses of the legacy stream."""
    PyCuda().stream()
    assert "Stream 1" in double.log


def test_one_context_a_gpu_for_the_life_of_the_process(double: PyCudaDouble) -> None:
    """pycuda's detach leaves a context current that it has released, so it is never called."""
    first, second, other = PyCuda(0), PyCuda(0), PyCuda(1)
    with first.current(), second.current(), other.current():
        pass
    for cuda in (first, second, other):
        cuda.close()
    again = PyCuda(0)
    with again.current():
        pass
    again.close()
    assert double.log.count("retain 0") == double.log.count("retain 1") == 1
    assert double.log.count("push") == double.log.count("pop") == 4
    assert "detach" not in double.log
