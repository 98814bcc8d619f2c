"""CUDA graphs through the driver's library, since pycuda has none. cuda.h declares the calls.

Handles (CUstream, CUgraph, CUgraphExec) are pointers. Either binding has loaded the same library,
which works in the context that is current on the thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_ulonglong, c_void_p
from typing import Any

from retinart.engine.cuda.api import CudaError
from retinart.engine.cuda.devices import DRIVER

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile
SIGNATURES = {
    "cuStreamBeginCapture_v2": [c_void_p, c_int],
    "cuStreamEndCapture": [c_void_p, POINTER(c_void_p)],
    "cuGraphInstantiateWithFlags": [POINTER(c_void_p), c_void_p, c_ulonglong],
    "cuGraphLaunch": [c_void_p, c_void_p],
    "cuGraphExecDestroy": [c_void_p],
    "cuGraphDestroy": [c_void_p],
    "cuGetErrorName": [c_int, POINTER(c_char_p)],
}


class CapturedGraph:
    """A graph that is ready to launch. See `retinart.engine.cuda.api.Graph`."""

    def __init__(self, driver: Driver, stream: int, executable: c_void_p) -> None:
        self._driver, self._stream = driver, stream
        self._executable: c_void_p | None = executable

    def launch(self) -> None:
        """See `Graph`."""
        self._driver.call("cuGraphLaunch", self._executable, self._stream)

    def free(self) -> None:
        """See `Graph`."""
        if self._executable is not None:
            self._driver.call("cuGraphExecDestroy", self._executable)
            self._executable = None


class Driver:
    """The driver's library, with its calls checked.

    Raises:
        CudaError: it cannot be loaded, or is too old for graphs.
    """

    def __init__(self, name: str = DRIVER) -> None:
        try:
            self._library: Any = ctypes.CDLL(name)
            for function, types in SIGNATURES.items():
                getattr(self._library, function).argtypes = types
        except (OSError, AttributeError) as error:
            raise CudaError(str(error)) from error

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of SIGNATURES.

        Raises:
            CudaError: it did not succeed.
        """
        code = getattr(self._library, function)(*arguments)
        if code:
            name = c_char_p()
            self._library.cuGetErrorName(code, byref(name))
            raise CudaError(f"{function}: {(name.value or b'unknown error').decode()} ({code})")

    def capture(self, stream: int, enqueue: Callable[[], None]) -> CapturedGraph:
        """See `retinart.engine.cuda.api.Stream.capture`."""
        graph, executable = c_void_p(), c_void_p()
        collects = gc.isenabled()
        gc.disable()  # freeing an object of CUDA on this thread would break the capture
        try:
            self.call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
            try:
                enqueue()
            except BaseException:
                with contextlib.suppress(CudaError):  # the first error is the one to tell
                    self.call("cuStreamEndCapture", stream, byref(graph))
                if graph.value is not None:
                    self.call("cuGraphDestroy", graph)
                raise
            self.call("cuStreamEndCapture", stream, byref(graph))
        finally:
            if collects:
                gc.enable()
        try:
            self.call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        finally:
            self.call("cuGraphDestroy", graph)
        return CapturedGraph(self, stream, executable)
