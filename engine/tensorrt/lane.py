"""One way through an engine: a stream, the memory for its largest batch, and a context a shape.

A captured graph is only valid as long as nothing of the execution context that it was captured from
changes, so each input shape has a context of its own. They share the lane's memory, since a lane
does one thing at a time; TensorRT's guide advises just that (CUDA graphs, "Limitations").
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from retinart.engine.cuda.api import Cuda, CudaError, Graph
from retinart.engine.errors import RetinartError
from retinart.engine.media.images import Image
from retinart.engine.model.info import INPUT, OUTPUTS
from retinart.engine.model.resize import round_up
from retinart.engine.tensorrt.api import (
    ICudaEngine,
    IExecutionContext,
    IRuntimeConfig,
    TensorRT,
    last_words,
)
from retinart.engine.tensorrt.engine_file import FrameShape

SHAPES = 4  # contexts that a lane keeps, one an input shape
_ALIGNMENT = 256  # of every address that TensorRT is given

# num_detections (N, 1), detection_boxes (N, M, 4), detection_scores and detection_classes (N, M)
Outputs = tuple[
    npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int32]
]
_NOT_CAPTURABLE = (
    "TensorRT-RTX says that the context cannot be captured. Build the engine with this retinart, "
    "which has it allocate nothing later."
)
_CAPTURES = 3  # tries of a lane, since what other threads do with CUDA may break one


def output_tensors(n: int, limit: int) -> list[tuple[str, type, tuple[int, ...]]]:
    """Name, type and shape of each output, for N images of at most M detections."""
    shapes = ((n, 1), (n, limit, 4), (n, limit), (n, limit))
    return list(zip(OUTPUTS, (np.int32, np.float32, np.float32, np.int32), shapes, strict=True))


@functools.lru_cache(maxsize=64)
def _layout(n: int, limit: int) -> tuple[tuple[int, ...], int]:
    """Where each output of a batch begins in the memory for outputs, and where all end."""
    offsets, end = list[int](), 0
    for _, _, shape in output_tensors(n, limit):
        offsets.append(end)
        end += round_up(4 * math.prod(shape), _ALIGNMENT)
    return tuple(offsets), end


class _Freed(Protocol):
    def free(self) -> None: ...


F = TypeVar("F", bound=_Freed)


@dataclass
class _Bound:
    """An execution context with its shape and addresses set."""

    context: IExecutionContext
    ran: bool = False
    graph: Graph | None = None


class Lane:
    """Runs one batch at a time. Every method is called inside of `cuda.current()`.

    Args:
        trt: the runtime's module.
        cuda: the GPU.
        engine: what to run.
        config: how to make contexts, where the runtime has that; None for the strategy alone.
        largest: (N, H, W, 3) of the profile.
        limit: M, the detections an image that the engine gives.
        graphs: capture CUDA graphs.
        alone: held while contexts are made, run for the first time, and captured.
        log: TensorRT's, of `problems_log`.

    Attributes:
        no_graph: why plain launches are used although graphs are wanted; "" while they work.
    """

    def __init__(
        self,
        trt: TensorRT,
        cuda: Cuda,
        engine: ICudaEngine,
        *,
        config: IRuntimeConfig | None,
        largest: FrameShape,
        limit: int,
        graphs: bool,
        alone: threading.Lock,
        log: Any,
    ) -> None:
        self._trt, self._limit, self._alone, self._log = trt, limit, alone, log
        self._captures = _CAPTURES if graphs else 0  # tries that are left
        self._engine: ICudaEngine | None = engine
        self._config = config
        self.no_graph = ""
        self._bound: dict[FrameShape, _Bound] = {}
        self._shape = largest
        _, size = _layout(largest[0], limit)
        self._free: list[Callable[[], None]] = []
        try:
            self.stream = self._own(cuda.stream())
            self.frames = self._own(cuda.device_memory(math.prod(largest)))
            self._outputs = self._own(cuda.device_memory(size))
            scratch = max(_ALIGNMENT, int(engine.device_memory_size_v2))
            self._scratch = self._own(cuda.device_memory(scratch))
            self._host_frames = self._own(cuda.host_memory(math.prod(largest)))
            self._host_outputs = self._own(cuda.host_memory(size))
        except BaseException:
            self.close()
            raise

    def start(self, frames: Image, copied: Callable[[], None] = lambda: None) -> None:
        """Enqueue a batch (N, H, W, 3) uint8 BGR; it is copied before this returns.

        `copied` is called when it is in page-locked memory, before its upload.
        """
        staged = self._host_frames.array[: frames.size]
        np.copyto(staged.reshape(frames.shape), frames)
        copied()
        self.stream.upload(self.frames.address, staged)
        n, height, width, _ = frames.shape
        self.start_on_gpu((n, height, width, 3))

    def start_on_gpu(self, shape: FrameShape) -> None:
        """Enqueue a batch that stands at `frames`, or will when the stream gets there."""
        self._shape = shape
        bound = self._bound.pop(shape, None)
        if bound is not None:
            self._bound[shape] = bound  # the most recent last
        if bound is not None and bound.ran and not self._capturable(bound):
            self._run(bound)
            return
        with self._alone:
            bound = bound or self._bind(shape)
            if self._capturable(bound):
                self._capture(bound)
            self._run(bound)

    def finish(self) -> Outputs:
        """Wait for the batch, and copy its outputs out."""
        self.stream.synchronize()
        n, values = self._shape[0], list[npt.NDArray[Any]]()
        offsets, _ = _layout(n, self._limit)
        for offset, (_, kind, shape) in zip(offsets, output_tensors(n, self._limit), strict=True):
            data = self._host_outputs.array[offset : offset + 4 * math.prod(shape)]
            values.append(data.view(kind).reshape(shape).copy())
        count, boxes, scores, classes = values
        return count, boxes, scores, classes

    def close(self) -> None:
        """Free everything, in the order that each part needs the next: graphs, contexts, memory."""
        if self._free:
            with contextlib.suppress(CudaError):  # one that stays: free what can be
                self.stream.synchronize()
        for shape in list(self._bound):
            with contextlib.suppress(CudaError):
                self._unbind(shape)
        self._engine = self._config = None  # they go before the runtime does
        while self._free:
            with contextlib.suppress(CudaError):
                self._free.pop()()

    def _own(self, thing: F) -> F:
        self._free.append(thing.free)
        return thing

    def _capturable(self, bound: _Bound) -> bool:
        """Whether to capture now. The first run settles what a context does lazily."""
        return bound.graph is None and bound.ran and self._captures > 0

    def _capture(self, bound: _Bound) -> None:
        context, stream = bound.context, self.stream.handle
        self.no_graph = ""
        if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(stream):
            self.no_graph = _NOT_CAPTURABLE
        else:
            try:
                bound.graph = self.stream.capture(lambda: self._enqueue(bound))
            except RetinartError as error:
                self.no_graph = str(error)
        if self.no_graph:
            self._captures -= 1

    def _run(self, bound: _Bound) -> None:
        if bound.graph is not None:
            bound.graph.launch()
        else:
            self._enqueue(bound)
        bound.ran = True

    def _bind(self, shape: FrameShape) -> _Bound:
        if len(self._bound) >= SHAPES:
            self._unbind(next(iter(self._bound)))
        bound = self._bound[shape] = _Bound(self._context(shape))
        return bound

    def _unbind(self, shape: FrameShape) -> None:
        bound = self._bound.pop(shape)
        try:
            if bound.graph is not None:
                bound.graph.free()
        finally:
            del bound.context

    def _context(self, shape: FrameShape) -> IExecutionContext:
        assert self._engine is not None
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(self._config or strategy)
        if context is None:
            raise self._error("TensorRT cannot make an execution context")
        try:
            # contexts after an engine's first one have no profile until they are told
            done = context.set_optimization_profile_async(0, self.stream.handle)
        except RuntimeError:  # as its bindings say the same
            done = False
        if done:
            context.set_device_memory(self._scratch.address, self._scratch.nbytes)
            done = context.set_input_shape(INPUT, shape)
            done = context.set_tensor_address(INPUT, self.frames.address) and done
            for name, offset in zip(OUTPUTS, _layout(shape[0], self._limit)[0], strict=True):
                done = context.set_tensor_address(name, self._outputs.address + offset) and done
        if not done:
            del context  # whoever keeps the error does not keep this
            raise self._error(f"the engine takes no frames of shape {shape}")
        return context

    def _enqueue(self, bound: _Bound) -> None:
        if not bound.context.execute_async_v3(self.stream.handle):
            raise self._error("TensorRT could not run the engine")
        _, size = _layout(self._shape[0], self._limit)
        self.stream.download(self._host_outputs.array[:size], self._outputs.address)

    def _error(self, what: str) -> RetinartError:
        fix = "Take a smaller batch or fewer contexts if memory ran out, or build the engine again"
        return RetinartError(what, why=last_words(self._log), fix=fix)
