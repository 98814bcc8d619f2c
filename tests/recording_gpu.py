"""Doubles of CUDA and TensorRT that record and check how they are used. They are no GPU.

`RecordingCuda` has the methods of `retinart.engine.cuda.Cuda`. Its memory is NumPy's, and what is
put on a stream runs only when somebody waits for it, as late as a GPU may: whoever reads too early,
or overwrites what is still to be copied, gets wrong detections. It fails at once on memory that is
freed or unknown, on freeing twice, and on any use on a thread where the context is not current.

`FakeTensorRT` has the few names of TensorRT's module that the runtime uses. Its engine runs an ONNX
file in ONNX Runtime, on that memory.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from retinart.engine.cuda import Bytes, CudaError
from retinart.engine.detections import Detections
from retinart.engine.engine_file import EngineInfo
from retinart.engine.gpu_resize import KERNEL, resize_like_gpu
from retinart.engine.info import INPUT, OUTPUTS, read_info


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

    def kernel(self, source: str, name: str) -> Any:
        assert name == KERNEL and f"void {name}(" in source

        def launch(
            stream: RecordingStream,
            grid: tuple[int, int],
            block: tuple[int, int],
            arguments: Sequence[np.generic],
        ) -> None:
            sizes, pad = ([int(a) for a in part] for part in (arguments[:8], arguments[10:]))
            stream.put("kernel", lambda: self._resize(grid, block, sizes, pad))

        return SimpleNamespace(launch=launch)

    def _resize(
        self, grid: tuple[int, int], block: tuple[int, int], sizes: list[int], pad: list[int]
    ) -> None:
        source, source_h, source_w, target, frame_h, frame_w, h, w = sizes
        assert grid[0] * block[0] >= frame_w and grid[1] * block[1] >= frame_h
        image = self.at(source, source_h * source_w * 3).reshape(source_h, source_w, 3)
        frame = self.at(target, frame_h * frame_w * 3).reshape(frame_h, frame_w, 3)
        frame[:] = np.array(pad, np.uint8)
        frame[:h, :w] = resize_like_gpu(image, (h, w))

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


class FakeTensorRT:
    """See the module.

    Args:
        model: the ONNX file that engines run.
        cuda: the double whose memory they use.

    Attributes:
        fail: what goes wrong: "start", "load", "profile", "execute" or "shape".
        plans: what was deserialized.
        shapes, types: of the engine's tensors, by name; -1 for a size that is open.
    """

    __version__ = "10.16.1.11"
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")

    class ILogger:
        """The base of loggers."""

        Severity = SimpleNamespace(ERROR=1)

    def __init__(self, model: Path, cuda: RecordingCuda) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(model, options, providers=providers)
        self.cuda, self.fail, self.plans = cuda, "", list[bytes]()
        tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.shapes = {t.name: [d if isinstance(d, int) else -1 for d in t.shape] for t in tensors}
        self.types = {t.name: t.type for t in tensors}

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        assert logger is None, "the plugins keep its address for good"
        return True

    def nptype(self, trt_type: str) -> Any:
        kinds = {"uint8": np.uint8, "int32": np.int32, "float": np.float32, "double": np.float64}
        return kinds[trt_type.removeprefix("tensor(").removesuffix(")")]

    def Runtime(self, logger: Any) -> Any:
        self.logger = logger
        if self.fail == "start":
            logger.log(1, "the driver is too old")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return _FakeRuntime(self)


class FakeTensorRTRTX(FakeTensorRT):
    """The same with what only TensorRT-RTX has; `fail` can also be "capture"."""

    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")


class _Named:
    """Something whose end is recorded."""

    kind = ""

    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.address = trt.cuda.born(self.kind, None)

    def __del__(self) -> None:
        self.trt.cuda.dead(self.address)


class _FakeRuntime(_Named):
    kind = "runtime"

    def deserialize_cuda_engine(self, plan: bytes) -> _FakeEngine | None:
        self.trt.plans.append(plan)
        return None if self.trt.fail == "load" else _FakeEngine(self.trt)


class _FakeEngine(_Named):
    kind = "engine"
    device_memory_size_v2 = 1000

    @property
    def num_io_tensors(self) -> int:
        return len(self.trt.shapes)

    def get_tensor_name(self, index: int) -> str:
        return str(list(self.trt.shapes)[index])

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.trt.shapes[name]

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.trt.types[name])

    def create_execution_context(self, strategy: Any) -> _FakeContext:
        if not isinstance(self.trt, FakeTensorRTRTX):
            assert strategy == "user"
            return _FakeContext(self.trt)
        assert strategy.strategy == "user"
        cache = strategy.cache()
        assert cache is not None and cache.address in self.trt.cuda.alive, "a cache that is gone"
        assert strategy.dynamic_shapes_kernel_specialization_strategy == "eager"
        return _FakeRTXContext(self.trt)

    def create_runtime_config(self) -> _FakeConfig:
        return _FakeConfig(self.trt)


class _FakeConfig(_Named):
    kind = "runtime configuration"
    strategy, dynamic_shapes_kernel_specialization_strategy = "static", "lazy"

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> _FakeCache:
        return _FakeCache(self.trt)

    def set_runtime_cache(self, cache: _FakeCache) -> bool:
        self.cache = weakref.ref(cache)  # the bindings keep it no more alive than this
        return True


class _FakeCache(_Named):
    kind = "runtime cache"


class _FakeContext(_Named):
    kind = "execution context"

    def __init__(self, trt: FakeTensorRT) -> None:
        super().__init__(trt)
        self._set: dict[str, Any] = {}
        self._captured = False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if self.trt.fail == "profile":
            raise RuntimeError("Error in set optimization profile async.")
        return self._keep("profile", profile_index)

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= _FakeEngine.device_memory_size_v2 and memory % 256 == 0
        self.trt.cuda.at(memory, size)
        self._keep("memory", (memory, size))

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == INPUT and "profile" in self._set
        return self.trt.fail != "shape" and self._keep("shape", shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % 256 == 0, "not aligned"
        return self._keep(name, memory)

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.trt.fail == "execute":
            return False
        assert {"profile", "memory", "shape", INPUT, *OUTPUTS} == set(self._set)
        stream = self.trt.cuda.streams[stream_handle]
        if stream.captured is not None:
            assert self._set.get("shape"), "captured before its first run"
            self._captured = True
        set_up, trt = dict(self._set), self.trt

        def execute() -> None:
            trt.cuda.at(*set_up["memory"])
            shape = set_up["shape"]
            frames = trt.cuda.at(set_up[INPUT], int(np.prod(shape))).reshape(shape)
            values: list[npt.NDArray[Any]] = trt.session.run(list(OUTPUTS), {INPUT: frames})
            for name, value in zip(OUTPUTS, values, strict=True):
                data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
                trt.cuda.at(set_up[name], data.size)[:] = data

        stream.put("execute", execute)
        return True

    def _keep(self, name: str, value: Any) -> bool:
        self.trt.cuda.check()
        assert not self._captured, "changed after a graph was captured from it"
        self._set[name] = value
        return True


class _FakeRTXContext(_FakeContext):
    def is_stream_capturable(self, stream: int) -> bool:
        assert stream in self.trt.cuda.streams and "shape" in self._set
        return self.trt.fail != "capture"


PLAN = b"a plan"


def engine_info(model: Path, batch: int = 4) -> EngineInfo:
    """What `retinart build` would say of PLAN."""
    info = read_info(model)
    return EngineInfo(
        model=info,
        runtime="tensorrt",
        version=FakeTensorRT.__version__,
        gpu="a double",
        compute_capability="8.9",
        profile=((1, *info.min_size, 3), (1, *info.max_size, 3), (batch, *info.max_size, 3)),
        nms="native",
        version_compatible=False,
        hardware_compatible=False,
        build_seconds=1.0,
        plan_sha256=hashlib.sha256(PLAN).hexdigest(),
        onnx_sha256="",
        rebuild="retinart build model.onnx -o model.engine",
    )


def same(a: Detections, b: Detections) -> bool:
    return (
        np.array_equal(a.xyxy, b.xyxy)
        and np.array_equal(a.confidence, b.confidence)
        and np.array_equal(a.class_id, b.class_id)
    )
