"""A double of TensorRT's runtime, on the double of CUDA in `recording_gpu.py`.

`FakeTensorRT` has the few names of TensorRT's module that the runtime uses. Its engine runs an ONNX
file in ONNX Runtime, on that memory.
"""

from __future__ import annotations

import hashlib
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from recording_gpu import RecordingCuda
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.media.images import Image
from retinart.engine.model.info import INPUT, OUTPUTS, Thresholds, read_info
from retinart.engine.runtime.onnxruntime_runner import ONNXRuntimeRunner
from retinart.engine.runtime.options import EngineOptions, ONNXRuntimeOptions
from retinart.engine.tensorrt.engine_file import EngineInfo
from retinart.engine.tensorrt.runner import TensorRTRunner
from retinart.verify.judge import same
from support import make_picture


class FakeTensorRT:
    """See the module.

    Args:
        model: the ONNX file that engines run.
        cuda: the double whose memory they use.

    Attributes:
        fail: what goes wrong: "start", "load", "profile", "execute" or "shape". "stale": the run
            after a capture fails.
        plans: what was deserialized.
        shapes, types: of the engine's tensors, by name; -1 for a size that is open.
        layers: what the inspector says of each layer, in JSON.
        times: milliseconds of each layer in each run, by name.
    """

    __version__ = "10.16.1.11"
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    LayerInformationFormat = SimpleNamespace(JSON="json")
    IProfiler = type("IProfiler", (), {})

    class ILogger:
        """The base of loggers."""

        Severity = SimpleNamespace(ERROR=1)

    def __init__(self, model: Path, cuda: RecordingCuda) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(model, options, providers=providers)
        self.cuda, self.fail, self.plans = cuda, "", list[bytes]()
        self.stale = False
        self.layers, self.times = list[str](), list[dict[str, float]]()
        tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.shapes = {t.name: [d if isinstance(d, int) else -1 for d in t.shape] for t in tensors}
        self.types = {t.name: t.type for t in tensors}
        self.cache: weakref.ref[Any] | None = None  # the last of TensorRT-RTX's, while it lives

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        assert isinstance(logger, self.ILogger), "the plugins' words go to the log of the process"
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
    """The same with what only TensorRT-RTX has.

    `fail` can also be "capture", or one of `EngineInvalidityDiagnostics`.
    """

    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    EngineInvalidityDiagnostics = SimpleNamespace(
        __members__={
            "UNSUPPORTED_CC": SimpleNamespace(value=2),
            "MALFORMED_ENGINE": SimpleNamespace(value=32),
        }
    )

    def Runtime(self, logger: Any) -> Any:
        super().Runtime(logger)
        return _FakeRTXRuntime(self)


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


class _FakeRTXRuntime(_FakeRuntime):
    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        kinds = FakeTensorRTRTX.EngineInvalidityDiagnostics
        why = kinds.__members__.get(self.trt.fail)
        if why is None:
            return SimpleNamespace(name="VALID"), 0
        return SimpleNamespace(name="INVALID"), why.value


class _FakeEngine(_Named):
    kind = "engine"
    device_memory_size_v2 = 1000

    @property
    def num_layers(self) -> int:
        return len(self.trt.layers)

    def create_engine_inspector(self) -> Any:
        def look(layer_index: int, format: str) -> str:
            assert format == "json"
            return self.trt.layers[layer_index]

        return SimpleNamespace(get_layer_information=look)

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
        self.trt.cache = weakref.ref(made := _FakeCache(self.trt))
        return made

    def set_runtime_cache(self, cache: _FakeCache) -> bool:
        self.cache = weakref.ref(cache)  # the bindings keep it no more alive than this
        return True


class _FakeCache(_Named):
    kind, content = "runtime cache", b"nothing"

    def deserialize(self, blob: bytes) -> bool:
        self.trt.cuda.check()
        fits = blob.startswith(b"kernels")
        self.content = blob if fits else self.content
        return fits

    def serialize(self) -> bytes:
        self.trt.cuda.check()
        return self.content


class _FakeContext(_Named):
    kind = "execution context"
    profiler: Any = None

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
        if self.profiler is not None:
            for name, ms in self.trt.times.pop(0).items():
                self.profiler.report_layer_time(name, ms)
        stream = self.trt.cuda.streams[stream_handle]
        if stream.captured is None and self.trt.stale:
            self.trt.stale = False
            return False
        if stream.captured is not None:
            self.trt.stale = self.trt.fail == "stale"
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
        nms="graph",
        version_compatible=False,
        hardware_compatible=False,
        build_seconds=1.0,
        plan_sha256=hashlib.sha256(PLAN).hexdigest(),
        onnx_sha256="",
        rebuild="retinart build model.onnx -o model.engine",
    )


class Made:
    """A runner on doubles, and what it should find."""

    def __init__(
        self,
        model: Path,
        *,
        captures: bool = True,
        kind: type[FakeTensorRT] = FakeTensorRT,
        thresholds: Thresholds | None = None,
        **options: Any,
    ) -> None:
        self.cuda = RecordingCuda(captures=captures)
        self.trt = kind(model, self.cuda)
        self.info = engine_info(model)
        self.thresholds = thresholds or self.info.model.thresholds
        self.runner = engine_runner(self.info, self.thresholds, self.trt, self.cuda, **options)
        self.reference = ONNXRuntimeRunner(
            model, self.info.model, self.thresholds, ONNXRuntimeOptions(threads=1)
        )

    def check(self, frames: Image) -> None:
        """See that the runner finds what ONNX Runtime finds."""
        want, got = run(self.reference, frames), run(self.runner, frames)
        assert all(same(a, b) for a, b in zip(want, got, strict=True))
        assert sum(map(len, want)) > 0


def engine_runner(
    info: EngineInfo, thresholds: Thresholds, trt: FakeTensorRT, cuda: RecordingCuda, **options: Any
) -> TensorRTRunner:
    """A runner of PLAN on doubles."""
    doubles: Any = {"trt": trt, "cuda": cuda}
    return TensorRTRunner(PLAN, info, thresholds, EngineOptions(**options), **doubles)


def run(runner: TensorRTRunner | ONNXRuntimeRunner, frames: Image) -> list[Detections]:
    return runner.start(frames, StageClock())()


def frames(*seeds: int, height: int = 96, width: int = 128) -> Image:
    return np.stack([make_picture(seed, height, width) for seed in seeds])
