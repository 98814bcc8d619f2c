"""One way through an engine: a stream, the memory for its largest batch, and a context a shape.

A captured graph is only valid as long as nothing of the execution context that it was captured from
changes, so a frequent input shape has a context of its own. They share the lane's memory, since a
lane does one thing at a time. TensorRT's guide advises just that (CUDA graphs, "Limitations").

To make a context takes long. So all rare shapes share one more, the loose context, which is set to
another shape each time and never captured.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from retinart.engine.cuda.api import Cuda, CudaError, Graph
from retinart.engine.errors import RetinartError
from retinart.engine.media.images import Image
from retinart.engine.model.info import INPUT, OUTPUTS
from retinart.engine.model.resize_rule import ResizeRule, round_up
from retinart.engine.model.resized_image import Resized
from retinart.engine.tensorrt.api import IExecutionContext
from retinart.engine.tensorrt.engine_file import FrameShape
from retinart.engine.tensorrt.gpu_resize import GpuResize
from retinart.engine.tensorrt.plan import Outputs, Plan, output_tensors

SHAPES = 4  # contexts of a lane that have a shape of their own
_OFTEN = 3  # a shape that came so often may take the place of one that came half as often
_MEMORY = 256  # batches after which older ones count half
_ALIGNMENT = 256  # of every address that TensorRT is given
_NOT_CAPTURABLE = (
    "TensorRT-RTX says that the context cannot be captured. Build the engine with this retinart, "
    "which has it allocate nothing later."
)
_CAPTURES = 3  # tries of a lane, since what other threads do with CUDA may break one

# One lock for the process. When a context is made or first run, it can wait for the whole GPU. That
# breaks a capture on any other thread, of this runner or another.
_alone = threading.Lock()


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
    """Runs one batch at a time. Use it inside of `cuda.current()`.

    A batch goes `load`, `start`, `finish`, or with images that the GPU resizes `start_resizing`,
    `finish`.

    Args:
        cuda: the GPU.
        plan: what to run; closed after the lane.
        graphs: capture CUDA graphs.
        resize: the rule by which the GPU resizes images, or None.

    Attributes:
        no_graph: why plain launches are used although graphs are wanted; "" while graphs work.
    """

    def __init__(
        self, cuda: Cuda, plan: Plan, *, graphs: bool, resize: ResizeRule | None = None
    ) -> None:
        self._plan = plan
        self._captures = _CAPTURES if graphs else 0  # tries that are left
        self.no_graph = ""
        self._bound: dict[FrameShape, _Bound] = {}
        self._loose: _Bound | None = None
        self._loose_shape: FrameShape | None = None
        self._seen: Counter[FrameShape] = Counter()  # batches of each shape
        self._shape = plan.largest
        _, outputs = _layout(plan.largest[0], plan.limit)
        frames, scratch = math.prod(plan.largest), max(_ALIGNMENT, plan.scratch_bytes)
        self._free: list[Callable[[], None]] = []
        try:
            self.stream = self._own(cuda.stream())
            self._frames = self._own(cuda.device_memory(frames))
            self._outputs = self._own(cuda.device_memory(outputs))
            self._scratch = self._own(cuda.device_memory(scratch))
            self._host_frames = self._own(cuda.host_memory(frames))
            self._host_outputs = self._own(cuda.host_memory(outputs))
            self._resizer = None
            if resize is not None:
                self._resizer = self._own(GpuResize(cuda, self.stream, resize))
        except BaseException:
            self.close()
            raise

    def load(self, frames: Image) -> None:
        """Copy a batch (N, H, W, 3) uint8 BGR into page-locked memory."""
        np.copyto(self._host_frames.array[: frames.size].reshape(frames.shape), frames)
        n, height, width, _ = frames.shape
        self._shape = (n, height, width, 3)

    def start(self) -> None:
        """Enqueue what was loaded: its upload, the engine, and the download of the outputs."""
        size = math.prod(self._shape)
        self.stream.upload(self._frames.address, self._host_frames.array[:size])
        self._start_engine()

    def start_resizing(
        self, images: Sequence[Image], resized: Sequence[Resized], shape: FrameShape
    ) -> None:
        """Enqueue a batch of a shape that the GPU makes of images; they are copied at once."""
        assert self._resizer is not None
        self._shape = shape
        self._resizer.enqueue(images, resized, shape, self._frames.address)
        self._start_engine()

    def finish(self) -> Outputs:
        """Wait for the batch, and copy its outputs out."""
        self.stream.synchronize()
        n, values = self._shape[0], list[npt.NDArray[Any]]()
        offsets, _ = _layout(n, self._plan.limit)
        tensors = output_tensors(n, self._plan.limit)
        for offset, (_, kind, shape) in zip(offsets, tensors, strict=True):
            data = self._host_outputs.array[offset : offset + 4 * math.prod(shape)]
            values.append(data.view(kind).reshape(shape).copy())
        count, boxes, scores, classes = values
        return count, boxes, scores, classes

    def close(self) -> None:
        """Free everything, in the order that each part needs the next: graphs, contexts, memory."""
        if self._free:
            with contextlib.suppress(CudaError):  # after an error that stays, free what can be
                self.stream.synchronize()
        for shape in list(self._bound):
            with contextlib.suppress(CudaError):
                self._unbind(shape)
        self._loose = None
        while self._free:
            with contextlib.suppress(CudaError):
                self._free.pop()()

    def _own(self, thing: F) -> F:
        self._free.append(thing.free)
        return thing

    def _start_engine(self) -> None:
        """Enqueue the engine and the download of its outputs, as a graph where there is one."""
        shape = self._shape
        self._seen[shape] += 1
        if self._seen.total() >= _MEMORY:
            self._seen = Counter({shape: n // 2 for shape, n in self._seen.items() if n > 1})
        bound = self._bound.get(shape)
        if bound is None and shape == self._loose_shape and not self._earns_context(shape):
            bound = self._loose
        if bound is not None and bound.ran and not self._capturable(bound):
            self._run(bound)
            return
        with _alone:
            bound = bound or self._bind(shape)
            tried = self._capturable(bound)
            if tried:
                self._capture(bound)
            try:
                self._run(bound)
            except RetinartError:
                # CUDA may report the error of a capture that failed to the call after it
                if not tried or bound.graph is not None:
                    raise
                self._run(bound)

    def _capturable(self, bound: _Bound) -> bool:
        """Whether to capture now. The first run settles what a context does lazily."""
        free = bound.graph is None and bound is not self._loose
        return free and bound.ran and self._captures > 0

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

    def _enqueue(self, bound: _Bound) -> None:
        if not bound.context.execute_async_v3(self.stream.handle):
            raise self._plan.error("TensorRT could not run the engine")
        _, size = _layout(self._shape[0], self._plan.limit)
        self.stream.download(self._host_outputs.array[:size], self._outputs.address)

    def _bind(self, shape: FrameShape) -> _Bound:
        """A context that is set to a shape: its own one, or the loose one."""
        if self._earns_context(shape):
            if len(self._bound) >= SHAPES:
                self._unbind(self._rarest())
            bound = self._bound[shape] = _Bound(self._context(shape))
            return bound
        self._loose_shape = None
        if self._loose is None:
            self._loose = _Bound(self._context(shape))
        else:
            self._loose.ran = False
            if not self._fit(self._loose.context, shape):
                raise self._refused(shape)
        self._loose_shape = shape
        return self._loose

    def _earns_context(self, shape: FrameShape) -> bool:
        if len(self._bound) < SHAPES:
            return True
        often = self._seen[shape]
        return often >= _OFTEN and often > 2 * self._seen[self._rarest()]

    def _rarest(self) -> FrameShape:
        return min(self._bound, key=lambda shape: self._seen[shape])

    def _unbind(self, shape: FrameShape) -> None:
        bound = self._bound.pop(shape)
        try:
            if bound.graph is not None:
                bound.graph.free()
        finally:
            del bound.context

    def _context(self, shape: FrameShape) -> IExecutionContext:
        context = self._plan.new_context()
        try:
            # contexts after an engine's first one have no profile until they are told
            done = context.set_optimization_profile_async(0, self.stream.handle)
        except RuntimeError:  # some bindings raise instead of returning False
            done = False
        if done:
            context.set_device_memory(self._scratch.address, self._scratch.nbytes)
            done = self._fit(context, shape)
        if not done:
            del context  # or the traceback would keep the context alive
            raise self._refused(shape)
        return context

    def _fit(self, context: IExecutionContext, shape: FrameShape) -> bool:
        """Set a context to a shape and to the lane's memory; returns whether TensorRT takes it."""
        done = context.set_input_shape(INPUT, shape)
        done = context.set_tensor_address(INPUT, self._frames.address) and done
        offsets, _ = _layout(shape[0], self._plan.limit)
        for name, offset in zip(OUTPUTS, offsets, strict=True):
            done = context.set_tensor_address(name, self._outputs.address + offset) and done
        return done

    def _refused(self, shape: FrameShape) -> RetinartError:
        return self._plan.error(f"the engine takes no frames of shape {shape}")
