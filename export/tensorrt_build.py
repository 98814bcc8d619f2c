"""ONNX bytes to a TensorRT plan: one builder for TensorRT 10, TensorRT 11 and TensorRT-RTX.

Networks are strongly typed: the file holds the precision, as types and as Q/DQ pairs. TensorRT 11
knows no other way. TF32 is turned off, because a file in FP32 shall be computed in FP32.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from retinart.engine.errors import BadInput, CheckFailed
from retinart.engine.model.info import INPUT, REEXPORT, ModelInfo
from retinart.engine.tensorrt.api import (
    TITLES,
    EngineRuntime,
    IBuilderConfig,
    OnnxParser,
    TensorRT,
    last_words,
    problems_log,
    started,
)
from retinart.engine.tensorrt.engine_file import FrameShape
from retinart.export.settings import HardwareCompatible, Tiling

Profile = tuple[FrameShape, FrameShape, FrameShape]
Show = Callable[[float, str], None]
T = TypeVar("T")

_STRONGLY_TYPED = 1 << 1  # NetworkDefinitionCreationFlag.STRONGLY_TYPED, of TensorRT 10 only
_TYPICAL = (480, 640)  # (height, width) of the images that dynamic sizes are tuned for
_REPORT = "If that does not help, report it with the output of `retinart inspect`"


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What a plan is built with.

    Attributes:
        profile: smallest, optimal and largest (N, H, W, 3) of the frames.
        workspace: bytes of GPU memory that a layer may use; None for TensorRT's choice.
        optimization_level: 0 to 5; None for TensorRT's choice.
        version_compatible: later versions can run it too, up to the next major one.
        hardware_compatible: see `BuildSettings`, as `timing_iterations` and `tiling`.
        compute_capabilities: of TensorRT-RTX, such as "SM89"; none for its choice.
        timing_cache: an earlier `Plan.timing_cache`; b"" to begin one, None for none.
        cache_name: of the file that it came from, for errors.
        aot_plugins: the plan takes the kernels of plugins in; see `nms_plugin`.
    """

    profile: Profile
    workspace: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: HardwareCompatible = "none"
    timing_iterations: int | None = None
    tiling: Tiling | None = None
    compute_capabilities: tuple[str, ...] = ()
    timing_cache: bytes | None = None
    cache_name: str = ""
    aot_plugins: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A serialized engine.

    Attributes:
        data: the plan.
        seconds: parsing and building.
        timing_cache: with the timings of this build; None if the settings had none.
    """

    data: bytes = field(repr=False)
    seconds: float
    timing_cache: bytes | None = field(repr=False)


def profile_for(info: ModelInfo, batch: tuple[int, int, int]) -> Profile:
    """The profile of a model for these smallest, optimal and largest batches."""
    rule = info.resize
    best = rule.canvas or rule.canvas_for([rule.fit(*_TYPICAL)])
    low, middle, high = batch
    return ((low, *info.min_size, 3), (middle, *best, 3), (high, *info.max_size, 3))


def build_plan(
    trt: TensorRT,
    runtime: EngineRuntime,
    model: bytes,
    settings: PlanSettings,
    *,
    name: str = "the model",
    show: Show = lambda fraction, phase: None,
    on: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Plan:
    """Parse a file and build it. Ctrl-C stops it between two of TensorRT's steps.

    Args:
        trt: the module of the runtime.
        model: a serialized ONNX file.
        name: the file's name in errors.
        show: called with the fraction that is done and the name of TensorRT's present phase.
        on: makes the GPU to build on current in a thread.

    Raises:
        CheckFailed: the parser or the builder refused the graph; the message quotes them.
        BadInput: the timing cache was made on another GPU or by another version.
        KeyboardInterrupt: Ctrl-C.
    """
    stop = threading.Event()
    monitor = _progress_monitor(trt, show, stop)

    # in a thread of its own: a KeyboardInterrupt inside a callback would end the process
    def work() -> Plan:
        with on():
            return _build(trt, runtime, model, settings, name, monitor)

    return _interruptible(work, stop)


def _build(
    trt: TensorRT,
    runtime: EngineRuntime,
    model: bytes,
    settings: PlanSettings,
    name: str,
    monitor: Any,
) -> Plan:
    start = time.perf_counter()
    title, log = TITLES[runtime], problems_log(trt)
    builder = started(title, log, trt.Builder)
    old = runtime == "tensorrt" and trt.__version__.startswith("10.")
    flags = _STRONGLY_TYPED if old else 0
    if settings.aot_plugins:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise CheckFailed(
            f"{title} cannot parse {name}",
            why="; ".join(_problems(parser)) or last_words(log),
            fix=f"{REEXPORT}, or try a newer {title}. {_REPORT}",
        )
    config = builder.create_builder_config()
    _configure(trt, runtime, config, settings)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *settings.profile)
    config.add_optimization_profile(profile)
    config.progress_monitor = monitor
    if settings.timing_cache is not None:
        cache = config.create_timing_cache(settings.timing_cache)
        if cache is None or not config.set_timing_cache(cache, False):
            raise BadInput(
                f"the timing cache {settings.cache_name} cannot be used",
                why="it is damaged, or was made on another GPU or by another version than "
                f"{trt.__version__}",
                fix="Give another file as `timing_cache`, or delete this one",
            )
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CheckFailed(
            f"{title} parses {name} but cannot build it",
            why=last_words(log),
            fix=f"Raise `workspace`, or free memory of the GPU. {_REPORT}",
        )
    kept = None
    if settings.timing_cache is not None:
        kept = bytes(memoryview(config.get_timing_cache().serialize()))  # type: ignore[arg-type]
    data = bytes(memoryview(plan))  # type: ignore[arg-type]  # it has the buffer protocol
    return Plan(data=data, seconds=time.perf_counter() - start, timing_cache=kept)


def _configure(
    trt: TensorRT, runtime: EngineRuntime, config: IBuilderConfig, settings: PlanSettings
) -> None:
    config.clear_flag(trt.BuilderFlag.TF32)
    # what `retinart inspect --layers` shows; TensorRT-RTX's plan of R50 gets 24 bytes longer
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if runtime == "tensorrt-rtx" and hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # without it the engine may allocate at run time, and then no CUDA graph can be captured
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible != "none":
        level = {"same": "SAME_COMPUTE_CAPABILITY", "ampere": "AMPERE_PLUS"}
        config.hardware_compatibility_level = getattr(
            trt.HardwareCompatibilityLevel, level[settings.hardware_compatible]
        )
    if settings.timing_iterations is not None:
        config.avg_timing_iterations = settings.timing_iterations
    if settings.tiling is not None:
        level_of = trt.TilingOptimizationLevel
        config.tiling_optimization_level = getattr(level_of, settings.tiling.upper())
    if settings.compute_capabilities:
        config.num_compute_capabilities = len(settings.compute_capabilities)
        for i, name in enumerate(settings.compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), i)


def _problems(parser: OnnxParser) -> list[str]:
    """The parser's errors, each with its node."""
    lines = []
    for i in range(parser.num_errors):
        problem = parser.get_error(i)
        node = problem.node_name() or f"number {problem.node()}"
        lines.append(f"node {node} ({problem.node_operator()}): {problem.desc()}")
    return lines


def _interruptible(work: Callable[[], T], stop: threading.Event) -> T:
    """Do `work` in another thread. On Ctrl-C set `stop`, wait until `work` ends, and raise."""
    with ThreadPoolExecutor(1, "build") as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            stop.set()
            raise


def _progress_monitor(trt: TensorRT, show: Show, stop: threading.Event) -> Any:
    """A monitor that shows TensorRT's nested phases as one fraction, and ends them on `stop`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]  # found at run time
        def __init__(self) -> None:
            super().__init__()
            self._phases = Phases()
            self._lock = threading.Lock()  # TensorRT calls from several threads

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.done(phase_name, step + 1)
                show(self._phases.fraction, phase_name)
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

    return Monitor()


class Phases:
    """How far a build is. A phase is one step of its parent; when it ends, the parent steps on."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps done
        self._furthest = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase."""
        self._open[name] = (parent, max(1, steps), 0)

    def done(self, name: str, steps: int) -> None:
        """Note how many of a phase's steps are done."""
        if name in self._open:
            parent, total, _ = self._open[name]
            self._open[name] = (parent, total, min(steps, total))

    def finish(self, name: str) -> None:
        """End a phase."""
        self._open.pop(name, None)

    @property
    def fraction(self) -> float:
        """0 to 1; it never falls."""
        parts = [self._of(name) for name, (parent, _, _) in self._open.items() if not parent]
        self._furthest = max([self._furthest, *parts])
        return self._furthest

    def _of(self, name: str) -> float:
        _, total, done = self._open[name]
        inner = [self._of(n) for n, (parent, _, _) in self._open.items() if parent == name]
        return min(1.0, (done + max(inner, default=0.0)) / total)
