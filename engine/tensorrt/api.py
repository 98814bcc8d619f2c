"""The part of TensorRT's Python API that retinart uses, class by class.

Two modules have this API: `tensorrt` (10 and 11) and `tensorrt_rtx`. Neither has types, so mypy
checks our calls against these protocols. `tests/engine/tensorrt/test_contract.py` compares each
class, method, argument and flag here with the real bindings of TensorRT 10, TensorRT 11 and
TensorRT-RTX. A protocol has the name of its class there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from retinart.engine.common.packages import import_package
from retinart.engine.errors import RetinartError

EngineRuntime = Literal["tensorrt", "tensorrt-rtx"]
MODULES: dict[EngineRuntime, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
TITLES: dict[EngineRuntime, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}

T = TypeVar("T")
Flag = Any  # a member of one of the enumerations below
Shape = Sequence[int]

# What only TensorRT-RTX has, as class or class.member. Code checks for it before using it.
RTX_ONLY = frozenset(
    {
        "BuilderFlag.REQUIRE_USER_ALLOCATION",
        "DynamicShapesKernelSpecializationStrategy",
        "IExecutionContext.is_stream_capturable",
        "IRuntimeCache",
        "IRuntimeConfig.create_runtime_cache",
        "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
        "IRuntimeConfig.set_runtime_cache",
        "Runtime.get_engine_validity",
        "TensorRT.ComputeCapability",
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
        "TensorRT.DynamicShapesKernelSpecializationStrategy",
        "TensorRT.EngineInvalidityDiagnostics",
    }
)
# What only TensorRT has, from 10.9 on.
TENSORRT_ONLY = frozenset({"NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS"})


class BuilderFlag(Protocol):
    """Switches of a builder's configuration."""

    TF32: Flag
    VERSION_COMPATIBLE: Flag
    REQUIRE_USER_ALLOCATION: Flag


class HardwareCompatibilityLevel(Protocol):
    """Which GPUs an engine runs on, besides the one that built it."""

    AMPERE_PLUS: Flag
    SAME_COMPUTE_CAPABILITY: Flag  # since 10.8, as TilingOptimizationLevel


class TilingOptimizationLevel(Protocol):
    """How hard to look for layers that share the L2 cache."""

    NONE: Flag
    FAST: Flag
    MODERATE: Flag
    FULL: Flag


class NetworkDefinitionCreationFlag(Protocol):
    """How a network is made."""

    PREFER_AOT_PYTHON_PLUGINS: Flag


class ProfilingVerbosity(Protocol):
    """What a plan says of its layers."""

    DETAILED: Flag


class LayerInformationFormat(Protocol):
    """How an inspector describes a layer."""

    JSON: Flag


class DataType(Protocol):
    """Types of tensors."""

    FLOAT: Flag
    INT32: Flag


class MemoryPoolType(Protocol):
    """Kinds of memory that can be limited."""

    WORKSPACE: Flag


class ExecutionContextAllocationStrategy(Protocol):
    """Who gives an execution context its memory."""

    USER_MANAGED: Flag


class DynamicShapesKernelSpecializationStrategy(Protocol):
    """When kernels for the shape of a run are compiled."""

    EAGER: Flag


class IHostMemory(Protocol):
    """Bytes that TensorRT owns. Read them through the buffer protocol."""

    @property
    def nbytes(self) -> int: ...


class ITimingCache(Protocol):
    """The speed of each tactic, for later builds."""

    def serialize(self) -> IHostMemory: ...


class IOptimizationProfile(Protocol):
    """The sizes that an engine takes."""

    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None: ...


class IBuilderConfig(Protocol):
    """How to build."""

    progress_monitor: Any
    profiling_verbosity: Flag
    builder_optimization_level: int
    hardware_compatibility_level: Flag
    avg_timing_iterations: int
    tiling_optimization_level: Flag
    num_compute_capabilities: int  # of TensorRT-RTX alone, as the next

    def set_compute_capability(self, compute_capability: Flag, index: int) -> bool: ...
    def set_flag(self, flag: Flag) -> None: ...
    def clear_flag(self, flag: Flag) -> None: ...
    def set_memory_pool_limit(self, pool: Flag, pool_size: int) -> None: ...
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> ITimingCache: ...


class INetworkDefinition(Protocol):
    """A network, as the parser fills it."""

    @property
    def num_layers(self) -> int: ...


class Builder(Protocol):
    """Makes networks and plans."""

    def create_network(self, flags: int) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None: ...


class ParserError(Protocol):
    """Why the parser refused a file, and where."""

    def node(self) -> int: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...
    def desc(self) -> str: ...


class OnnxParser(Protocol):
    """Reads ONNX into a network."""

    @property
    def num_errors(self) -> int: ...
    def parse(self, model: bytes) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class IPluginRegistry(Protocol):
    """The plugins that TensorRT knows."""

    def get_creator(self, type: str, version: str, plugin_namespace: str) -> object | None: ...


class IExecutionContext(Protocol):
    """One execution at a time of an engine, at one input shape."""

    profiler: Any  # an IProfiler; each run then waits until it has reported every layer

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_device_memory(self, memory: int, size: int) -> None: ...
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...
    def is_stream_capturable(self, stream: int) -> bool: ...


class IRuntimeCache(Protocol):
    """The kernels that TensorRT-RTX has compiled for the GPU."""

    def serialize(self) -> IHostMemory: ...
    def deserialize(self, blob: bytes) -> bool: ...


class IRuntimeConfig(Protocol):
    """How execution contexts are made."""

    dynamic_shapes_kernel_specialization_strategy: Flag

    def set_execution_context_allocation_strategy(self, strategy: Flag) -> None: ...
    def create_runtime_cache(self) -> IRuntimeCache: ...
    def set_runtime_cache(self, cache: IRuntimeCache) -> bool: ...


class EngineInspector(Protocol):
    """Says what a plan does."""

    def get_layer_information(self, layer_index: int, format: Flag) -> str: ...


class ICudaEngine(Protocol):
    """A loaded plan."""

    @property
    def num_layers(self) -> int: ...
    @property
    def num_io_tensors(self) -> int: ...
    @property
    def device_memory_size_v2(self) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_shape(self, name: str) -> Shape: ...
    def get_tensor_dtype(self, name: str) -> Flag: ...
    def create_engine_inspector(self) -> EngineInspector: ...
    def create_runtime_config(self) -> IRuntimeConfig: ...
    def create_execution_context(self, strategy: Flag) -> IExecutionContext | None:
        """Also takes an IRuntimeConfig in place of the strategy, by position."""


class Runtime(Protocol):
    """Loads plans. Making one on a machine without a GPU can end the process."""

    engine_host_code_allowed: bool

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...
    def get_engine_validity(self, buffer: bytes) -> tuple[Flag, int]: ...


class TensorRT(Protocol):
    """The module."""

    __version__: str
    ILogger: Any  # the base of our logger, with the method log(severity, msg)
    IProgressMonitor: Any  # likewise, with phase_start, step_complete and phase_finish
    IProfiler: Any  # likewise, with report_layer_time(layer_name, ms)
    ComputeCapability: Any  # an enumeration: NONE, CURRENT, SM75, ...
    EngineInvalidityDiagnostics: Any  # an enumeration of bits
    BuilderFlag: BuilderFlag
    DataType: DataType
    ProfilingVerbosity: ProfilingVerbosity
    LayerInformationFormat: LayerInformationFormat
    NetworkDefinitionCreationFlag: NetworkDefinitionCreationFlag
    HardwareCompatibilityLevel: HardwareCompatibilityLevel
    TilingOptimizationLevel: TilingOptimizationLevel
    MemoryPoolType: MemoryPoolType
    ExecutionContextAllocationStrategy: ExecutionContextAllocationStrategy
    DynamicShapesKernelSpecializationStrategy: DynamicShapesKernelSpecializationStrategy

    def Builder(self, logger: Any) -> Builder: ...
    def OnnxParser(self, network: INetworkDefinition, logger: Any) -> OnnxParser: ...
    def Runtime(self, logger: Any) -> Runtime: ...
    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool: ...
    def get_plugin_registry(self) -> IPluginRegistry | None: ...
    def nptype(self, trt_type: Flag) -> Any: ...


def installed(runtime: EngineRuntime) -> bool:
    """Whether a runtime's module is installed here, without importing it."""
    return importlib.util.find_spec(MODULES[runtime]) is not None


def load_tensorrt(runtime: EngineRuntime) -> TensorRT:
    """The module of a runtime.

    Raises:
        MissingDependency: it is not installed, or its libraries cannot be loaded.
    """
    module = import_package(
        MODULES[runtime],
        package=MODULES[runtime],
        extra=runtime,
        purpose=TITLES[runtime],
        fix="Install its libraries for this system and this version of CUDA",
    )
    return cast(TensorRT, module)


def known_capabilities(trt: TensorRT) -> tuple[str, ...]:
    """The compute capabilities that a runtime is limited to, such as "8.9"; empty for no limit."""
    members = getattr(getattr(trt, "ComputeCapability", None), "__members__", ())
    numbers = [name.removeprefix("SM") for name in members if name.startswith("SM")]
    return tuple(f"{number[:-1]}.{number[-1]}" for number in numbers)


def validity(trt: TensorRT, runtime: Runtime, plan: bytes) -> tuple[str, list[str]]:
    """TensorRT-RTX's verdict on a plan here, and its reasons, by its own names.

    "VALID", "SUBOPTIMAL" or "INVALID"; "" for TensorRT, which has no such question.
    """
    if not hasattr(runtime, "get_engine_validity"):
        return "", []
    verdict, flags = runtime.get_engine_validity(plan)
    kinds = trt.EngineInvalidityDiagnostics.__members__.items()
    return verdict.name, [name for name, kind in kinds if flags & kind.value]


def started(title: str, log: Any, make: Callable[[Any], T]) -> T:
    """Make a builder or a runtime, the first objects that need NVIDIA's driver.

    Raises:
        RetinartError: TensorRT does not start; the error quotes its log.
    """
    try:
        return make(log)
    except TypeError as error:  # pybind11 raises it for a null pointer
        raise RetinartError(
            f"{title} does not start here",
            why=last_words(log) or str(error),
            fix="Install a driver of NVIDIA's that knows the CUDA version it was built for",
        ) from error


def last_words(log: Any) -> str:
    """The last errors of `problems_log`, for the middle of a sentence."""
    return "; ".join(log.errors[-3:])


def problems_log(trt: TensorRT) -> Any:
    """The logger of a module, which prints nothing; its list `errors` is emptied.

    A process has one for each module. TensorRT keeps the address of the first logger that it gets,
    and objects that are made with another one still write to the first.
    """
    if trt not in _logs:
        _logs[trt] = _make_log(trt)
    log = _logs[trt]
    log.errors = []
    return log


_KEPT = 20  # errors that a log keeps
_logs: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def _make_log(trt: TensorRT) -> Any:
    error = trt.ILogger.Severity.ERROR

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]  # a base that is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity <= error:
                self.errors.append(msg)
                del self.errors[:-_KEPT]

    return Log()
