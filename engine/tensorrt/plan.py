"""A plan in TensorRT's hands: runtime, engine, and how TensorRT-RTX makes contexts of it."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.files import atomic_path, new_folder
from retinart.engine.errors import BadInput, RetinartError
from retinart.engine.model.info import INPUT
from retinart.engine.tensorrt.api import (
    TITLES,
    ICudaEngine,
    TensorRT,
    last_words,
    problems_log,
    started,
)
from retinart.engine.tensorrt.engine_file import EngineInfo
from retinart.engine.tensorrt.lane import output_tensors


class LoadedEngine:
    """What has to outlive the lanes, in the order in which each needs those before it.

    Args:
        kernels: the file for what TensorRT-RTX compiles, or None.
    """

    log: Any = None
    runtime: Any = None
    engine: Any = None
    cache: Any = None  # TensorRT-RTX's compiled kernels; a configuration only points at it
    config: Any = None

    def __init__(self, kernels: Path | None) -> None:
        self._kernels, self._read = kernels, b""

    def make_cache(self) -> None:
        """The cache, with what is in the file; what is of another GPU or version it refuses."""
        self.cache = self.config.create_runtime_cache()
        if self._kernels is not None and self._kernels.is_file():
            with contextlib.suppress(OSError):  # it only saves time
                self._read = self._kernels.read_bytes()
                self.cache.deserialize(self._read)

    def keep_cache(self) -> None:
        """Write the file again if kernels were compiled since."""
        if self._kernels is None or self.cache is None:
            return
        with contextlib.suppress(OSError, RuntimeError, RetinartError):  # it only saves time
            kept = bytes(memoryview(self.cache.serialize()))
            if kept != self._read:
                with new_folder(self._kernels.parent), atomic_path(self._kernels) as temporary:
                    temporary.write_bytes(kept)

    def free(self) -> None:
        """Let go of it, the last first."""
        self.config = None
        self.cache = None
        self.engine = None
        self.runtime = None
        self.log = None


def load(trt: TensorRT, plan: bytes, info: EngineInfo, loaded: LoadedEngine) -> None:
    """Fill `loaded` as far as it goes, also where it ends in an error.

    Raises:
        RetinartError: TensorRT does not start, or refuses the plan.
        BadInput: the plan is no detector's.
    """
    loaded.log = problems_log(trt)
    if info.runtime == "tensorrt":
        trt.init_libnvinfer_plugins(None, "")
    loaded.runtime = started(TITLES[info.runtime], loaded.log, trt.Runtime)
    if info.version_compatible:  # such a plan brings code of its own version along
        loaded.runtime.engine_host_code_allowed = True
    loaded.engine = loaded.runtime.deserialize_cuda_engine(plan)
    if loaded.engine is None:
        raise RetinartError(
            f"{info.runtime} cannot load the engine",
            why=last_words(loaded.log),
            fix=f"Build it again here: {info.rebuild}",
        )
    _check_tensors(trt, loaded.engine, info)
    if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        _make_config(trt, loaded)


def _check_tensors(trt: TensorRT, engine: ICudaEngine, info: EngineInfo) -> None:
    """See that the tensors are those that lanes make memory for."""
    limit = info.model.thresholds.detections_per_img
    wanted = {name: (np.dtype(kind).name, shape) for name, kind, shape in output_tensors(1, limit)}
    wanted[INPUT] = ("uint8", (1, *info.profile[2][1:]))
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    here = {}
    for name in names:
        kind, shape = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name, [1]
        _, most = wanted.get(name, ("", ()))
        sizes = tuple(engine.get_tensor_shape(name))[1:]
        for size, expected in itertools.zip_longest(sizes, most[1:]):
            shape.append(expected if size == -1 else size)  # -1: it is open until a batch is there
        here[name] = (kind, tuple(shape))
    if here != wanted:
        raise BadInput(
            f"the engine's tensors are {_tensors(here)}",
            why=f"a detector's are {_tensors(wanted)}",
            fix=f"Build it again: {info.rebuild}",
        )


def _tensors(found: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(
        f"{name} ({'x'.join(map(str, ('N', *shape[1:])))} {kind})"
        for name, (kind, shape) in sorted(found.items())
    )


def _make_config(trt: TensorRT, loaded: LoadedEngine) -> None:
    """How TensorRT-RTX shall make contexts, which all lanes share.

    It compiles for a shape when it sees that. "Eager" has it do so in the first run, and not beside
    those that follow, which could not be captured; with one cache it is done once for all contexts.
    """
    loaded.config = config = loaded.engine.create_runtime_config()
    loaded.make_cache()
    config.set_execution_context_allocation_strategy(
        trt.ExecutionContextAllocationStrategy.USER_MANAGED
    )
    config.dynamic_shapes_kernel_specialization_strategy = (
        trt.DynamicShapesKernelSpecializationStrategy.EAGER
    )
    if not config.set_runtime_cache(loaded.cache):
        loaded.cache = None  # every context then compiles for itself
