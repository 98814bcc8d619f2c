"""TensorRT's module as `retinart build` sees it, recording what it is told. It builds nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnx

from retinart.engine.cuda.devices import Gpu

GPU = Gpu(index=0, name="NVIDIA Double", compute_capability="8.9", cuda="13.0")


class FakeBuilder:
    """TensorRT's module as the builder sees it; `told` is what it was told."""

    def __init__(
        self, version: str = "10.16.1.11", *, plugin: bool = True, aot: bool = True
    ) -> None:
        self.__version__ = version
        self.told: dict[str, Any] = {"flags": []}
        self.plugin, self.cache_fits, self.seconds = plugin, True, 0.0
        self.cache_is_made = True
        self.ILogger = type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1)})
        self.IProgressMonitor = type("IProgressMonitor", (), {})
        flags = {"PREFER_AOT_PYTHON_PLUGINS": 3} if aot else {}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**flags)
        self.BuilderFlag = SimpleNamespace(TF32="TF32", VERSION_COMPATIBLE="VERSION_COMPATIBLE")
        self.HardwareCompatibilityLevel = SimpleNamespace(
            AMPERE_PLUS="AMPERE_PLUS", SAME_COMPUTE_CAPABILITY="SAME_COMPUTE_CAPABILITY"
        )
        self.TilingOptimizationLevel = SimpleNamespace(FULL="FULL")
        self.ProfilingVerbosity = SimpleNamespace(DETAILED="DETAILED")
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        assert isinstance(logger, self.ILogger), "the plugins' words go to the log of the process"
        return True

    def get_plugin_registry(self) -> Any:
        def get_creator(type: str, version: str, plugin_namespace: str) -> object | None:
            known = (type, version, plugin_namespace) == ("EfficientNMS_TRT", "1", "")
            return object() if known and self.plugin else None

        return SimpleNamespace(get_creator=get_creator)

    def Builder(self, logger: Any) -> Any:
        def create_network(flags: int) -> Any:
            self.told["network"] = flags
            return SimpleNamespace()

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=lambda: _FakeConfig(self),
            create_optimization_profile=lambda: SimpleNamespace(
                set_shape=lambda name, *shapes: self.told.update(profile=(name, *shapes))
            ),
            build_serialized_network=lambda network, config: b"plan " + bytes(20),
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        def parse(model: bytes) -> bool:
            self.told["model"] = onnx.load_model_from_string(model)
            return True

        return SimpleNamespace(parse=parse)


class _FakeConfig:
    progress_monitor: Any = None

    def __init__(self, trt: FakeBuilder) -> None:
        self._trt = trt

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name != "_trt":
            self._trt.told[name] = value

    def set_flag(self, flag: str) -> None:
        self._trt.told["flags"].append(flag)

    def clear_flag(self, flag: str) -> None:
        self._trt.told["flags"].append(f"no {flag}")

    def set_memory_pool_limit(self, pool: str, pool_size: int) -> None:
        self._trt.told[pool] = pool_size

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> bytes | None:
        self._trt.told["cache"] = serialized_timing_cache
        return serialized_timing_cache if self._trt.cache_is_made else None

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False and isinstance(cache, bytes)
        return self._trt.cache_fits

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"timings")
