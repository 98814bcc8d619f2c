"""A double of CUDA that records and checks how it is used, without a GPU.

`RecordingCuda` has the methods of `engine.cuda.api.Cuda`. Its memory is NumPy's. Work on a stream
runs only when a thread waits for it, as late as on a GPU: code that reads too early, or overwrites
what is still to be copied, gets wrong detections. It fails at once on memory that is freed or
unknown, on freeing twice, and on any use on a thread where the context is not current.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from retinart.engine.cuda.api import Bytes, CudaError
from retinart.engine.media.images import Image
from retinart.engine.model.interpolate import interpolate
from retinart.engine.model.variant import Interpolation
from retinart.engine.tensorrt.gpu_resize import FORMS, KERNEL


class RecordingCuda:
    """See the module. `log` is what happened, in order; `alive` is what is not freed yet."""

    def __init__(self, *, captures: bool = True) -> None:
        self.log: list[str] = []
        self.alive: dict[int, tuple[str, Any]] = {}
        self.captures = captures
        self.streams: dict[int, RecordingStream] = {}
        self.at_work: Callable[[], None] = lambda: None  # called while the GPU does what it has
        self.at_capture: Callable[[], None] = lambda: None  # called while a stream is captured
        self._next = 1 << 20
        self._thread = threading.local()
        self._lock = threading.Lock()
        self.closed = False

    @contextmanager
    def current(self) -> Iterator[None]:
        assert not self.closed, "the context was let go of"
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def check(self) -> None:
        """See that the context is current on this thread."""
        assert getattr(self._thread, "depth", 0), "used on a thread without the context"
        assert not self.closed

    def born(self, kind: str, thing: Any, size: int = 1) -> int:
        """A new thing's address."""
        self.check()
        with self._lock:
            address = self._next
            self._next += -(-size // 256) * 256 + 4096
            self.alive[address] = (kind, thing)
            self.log.append(f"make {kind}")
        return address

    def dead(self, address: int) -> None:
        """It is freed."""
        self.check()
        with self._lock:
            assert address in self.alive, "freed twice"
            self.log.append(f"free {self.alive.pop(address)[0]}")

    def at(self, address: int, size: int) -> Bytes:
        """Live device memory at an address."""
        for base, (kind, data) in list(self.alive.items()):
            if kind == "device memory" and base <= address < base + len(data):
                assert address + size <= base + len(data), "out of an allocation"
                return np.asarray(data[address - base : address - base + size])
        raise AssertionError("no memory at that address, or not any more")

    def count(self, entry: str) -> int:
        """How often something happened."""
        return self.log.count(entry)

    def device_memory(self, nbytes: int) -> Any:
        data = np.full(nbytes, 0xAB, np.uint8)  # never zeros by chance
        address = self.born("device memory", data, nbytes)
        return SimpleNamespace(address=address, nbytes=nbytes, free=lambda: self.dead(address))

    def host_memory(self, nbytes: int) -> Any:
        data = np.full(nbytes, 0xCD, np.uint8)
        address = self.born("host memory", data, nbytes)
        return SimpleNamespace(array=data, free=lambda: self.dead(address))

    def stream(self) -> RecordingStream:
        stream = RecordingStream(self)
        self.streams[stream.handle] = stream
        return stream

    def kernel(self, ptx: bytes, name: str) -> Any:
        assert name == KERNEL and f".entry {name}(".encode() in ptx

        def launch(
            stream: RecordingStream,
            grid: tuple[int, int],
            block: tuple[int, int],
            arguments: Sequence[np.generic],
        ) -> None:
            whole = [int(a) for a in arguments]
            stream.put("kernel", lambda: self._resize(grid, block, whole))

        return SimpleNamespace(launch=launch)

    def _resize(self, grid: tuple[int, int], block: tuple[int, int], whole: list[int]) -> None:
        source, source_h, source_w, target, frame_h, frame_w, h, w, *pad, form = whole
        assert grid[0] * block[0] >= frame_w and grid[1] * block[1] >= frame_h
        image = self.at(source, source_h * source_w * 3).reshape(source_h, source_w, 3)
        frame = self.at(target, frame_h * frame_w * 3).reshape(frame_h, frame_w, 3)
        frame[:] = np.array(pad, np.uint8)
        frame[:h, :w] = resize_like_gpu(image, (h, w), FORMS[form])

    def close(self) -> None:
        assert not self.alive, f"not freed: {sorted(kind for kind, _ in self.alive.values())}"
        assert not self.closed, "closed twice"
        self.log.append("close context")
        self.closed = True


class RecordingStream:
    """A queue that runs when it is waited for."""

    def __init__(self, cuda: RecordingCuda) -> None:
        self.cuda = cuda
        self.queue: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.handle = cuda.born("stream", self)

    def put(self, what: str, work: Callable[[], None]) -> None:
        """Enqueue work, or add it to the graph that is being captured."""
        self.cuda.check()
        assert self.handle in self.cuda.alive, "a stream that is gone"
        (self.queue if self.captured is None else self.captured).append(work)
        self.cuda.log.append(what if self.captured is None else f"capture {what}")

    def upload(self, address: int, source: Bytes) -> None:
        self._page_locked(source)
        target = self.cuda.at(address, source.size)
        self.put("upload", lambda: np.copyto(self._live(address, target), source))

    def download(self, target: Bytes, address: int) -> None:
        self._page_locked(target)
        source = self.cuda.at(address, target.size)
        self.put("download", lambda: np.copyto(target, self._live(address, source)))

    def capture(self, enqueue: Callable[[], None]) -> Any:
        assert self.captured is None, "captured within a capture"
        self.captured = []
        try:
            self.cuda.at_capture()
            enqueue()
            work = self.captured
        finally:
            self.captured = None
        if not self.cuda.captures:
            raise CudaError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED (900)")
        address = self.cuda.born("graph", work)

        def launch() -> None:
            assert address in self.cuda.alive, "a graph that is gone"
            for step in work:
                self.put("launch", step)

        return SimpleNamespace(launch=launch, free=lambda: self.cuda.dead(address))

    def record(self) -> Any:
        raise NotImplementedError("no clock here")

    def synchronize(self) -> None:
        self.cuda.check()
        if self.queue:
            self.cuda.at_work()
            self.cuda.log.append("wait")
        while self.queue:
            self.queue.pop(0)()

    def free(self) -> None:
        assert not self.queue, "freed at work"
        self.cuda.dead(self.handle)

    def _live(self, address: int, view: Bytes) -> Bytes:
        assert np.shares_memory(self.cuda.at(address, view.size), view)
        return view

    def _page_locked(self, array: Bytes) -> None:
        assert array.flags.c_contiguous
        held = [data for kind, data in list(self.cuda.alive.values()) if kind == "host memory"]
        assert any(np.shares_memory(array, data) for data in held), "not page-locked, or freed"


def resize_like_gpu(
    image: Image, size: tuple[int, int], interpolation: Interpolation = "opencv"
) -> Image:
    """The kernel's result: an image (H, W, 3) at a (height, width), without padding.

    The forms of whole numbers are the CPU's own. "float" is the kernel's arithmetic.
    """
    if interpolation != "float":
        target = np.empty((*size, 3), np.uint8)
        interpolate(image, target, interpolation)
        return target
    one, first, second, share = np.float32(1), [], [], []
    for to, source in zip(size, image.shape[:2], strict=True):
        at = ((np.arange(to) + 0.5) * (1 / (to / source)) - 0.5).astype(np.float32)
        low = np.floor(at).astype(np.intp)
        inside = (low >= 0) & (low < source - 1)
        first.append(np.clip(low, 0, source - 1))
        second.append(np.clip(low + 1, 0, source - 1))
        share.append(np.where(inside, at - low.astype(np.float32), np.float32(0)))
    fy, fx = share[0][:, None, None], share[1][None, :, None]
    pixels = image.astype(np.float32)
    top, bottom = (
        pixels[rows][:, first[1]] * (one - fx) + pixels[rows][:, second[1]] * fx
        for rows in (first[0], second[0])
    )
    return np.asarray(np.rint(top * (one - fy) + bottom * fy).astype(np.uint8), np.uint8)
