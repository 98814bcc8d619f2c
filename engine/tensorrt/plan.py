"""A plan in TensorRT's hands: it makes the execution contexts that lanes run."""

from __future__ import annotations

import contextlib
import itertools
import traceback
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retinart.engine.common.files import atomic_path
from retinart.engine.common.folders import new_folder
from retinart.engine.errors import BadInput, RetinartError
from retinart.engine.model.info import INPUT, OUTPUTS
from retinart.engine.tensorrt.api import (
    TITLES,
    Flag,
    ICudaEngine,
    IExecutionContext,
    IRuntimeCache,
    IRuntimeConfig,
    Runtime,
    TensorRT,
    last_words,
    problems_log,
    started,
    validity,
)
from retinart.engine.tensorrt.engine_file import EngineInfo, take_tensorrt

# num_detections (N, 1), detection_boxes (N, M, 4), detection_scores and detection_classes (N, M)
Outputs = tuple[
    npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int32]
]

# What helps where building the engine again here does not
_FIXES = {
    "OLD_CUDA_DRIVER": "Install a newer driver of NVIDIA's",
    "OLD_CUDA_RUNTIME": "Install a newer CUDA",
    "INSUFFICIENT_GPU_MEMORY": "Free memory of the GPU, or build for a smaller batch",
}


def output_tensors(n: int, limit: int) -> list[tuple[str, type, tuple[int, ...]]]:
    """Name, type and shape of each output, for N images of at most M detections."""
    shapes = ((n, 1), (n, limit, 4), (n, limit), (n, limit))
    return list(zip(OUTPUTS, (np.int32, np.float32, np.float32, np.int32), shapes, strict=True))


class Plan:
    """An engine that TensorRT has loaded. Use it inside of `cuda.current()`.

    Each of its parts needs those before it: the runtime, the engine, with TensorRT-RTX the cache of
    compiled kernels, and what contexts are made with. So `close` lets go of the last part first.

    Args:
        trt: the runtime's module.
        data: the engine's bytes.
        info: its metadata.
        kernels: the file for the kernels that TensorRT-RTX compiles, or None.

    Attributes:
        largest: (N, H, W, 3) of the profile.
        limit: M, the detections an image that the engine gives.
        scratch_bytes: device memory that a context needs while it runs.

    Raises:
        RetinartError: TensorRT does not start, or refuses the plan.
        BadInput: the plan is not a detector's.
    """

    def __init__(
        self, trt: TensorRT, data: bytes, info: EngineInfo, *, kernels: Path | None = None
    ) -> None:
        self._trt, self._info, self._kernels = trt, info, kernels
        self._log = problems_log(trt)
        self.largest, self.limit = info.profile[2], info.model.thresholds.detections_per_img
        self._cache: IRuntimeCache | None = None
        self._read = b""  # from the file of kernels
        self._parts = ExitStack()
        try:
            if info.runtime == "tensorrt":
                trt.init_libnvinfer_plugins(self._log, "")
            self._runtime: Runtime = started(TITLES[info.runtime], self._log, trt.Runtime)
            self._parts.callback(delattr, self, "_runtime")
            if info.version_compatible:  # such a plan brings code of its own version along
                self._runtime.engine_host_code_allowed = True
            self._engine = self._deserialized(data)
            self._parts.callback(delattr, self, "_engine")
            self._check_tensors()
            self.scratch_bytes = int(self._engine.device_memory_size_v2)
            rtx = hasattr(trt, "DynamicShapesKernelSpecializationStrategy")
            user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            self._made_with: IRuntimeConfig | Flag = self._rtx_config() if rtx else user_managed
            self._parts.callback(delattr, self, "_made_with")
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they hold parts as well
            self.close()
            raise

    def new_context(self) -> IExecutionContext:
        """An execution context, which must be gone before the plan is closed.

        Raises:
            RetinartError: TensorRT cannot make one.
        """
        context = self._engine.create_execution_context(self._made_with)
        if context is None:
            raise self.error("TensorRT cannot make an execution context")
        return context

    def error(self, what: str) -> RetinartError:
        """An error with the last words of TensorRT's log."""
        fix = "Take a smaller batch or fewer contexts if memory ran out, or build the engine again"
        return RetinartError(what, why=last_words(self._log), fix=fix)

    def close(self) -> None:
        """Write the file of kernels again if some were compiled since, and free everything."""
        self._keep_kernels()
        self._parts.close()

    def _deserialized(self, data: bytes) -> ICudaEngine:
        verdict, why = validity(self._trt, self._runtime, data)
        if verdict == "INVALID":
            known = {"UNSUPPORTED_CC": take_tensorrt(), **_FIXES}
            fixes = [fix for name, fix in known.items() if name in why]
            raise RetinartError(
                f"{TITLES[self._info.runtime]} refuses the engine on this machine",
                why=", ".join(why).lower().replace("_", " "),
                fix=(fixes or [f"Build it again here: {self._info.rebuild}"])[0],
            )
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise RetinartError(
                f"{self._info.runtime} cannot load the engine",
                why=last_words(self._log),
                fix=f"Build it again here: {self._info.rebuild}",
            )
        return engine

    def _check_tensors(self) -> None:
        """Check that the tensors are those that lanes make memory for."""
        engine, kinds = self._engine, self._trt.nptype
        wanted = {
            name: (np.dtype(kind).name, shape)
            for name, kind, shape in output_tensors(1, self.limit)
        }
        wanted[INPUT] = ("uint8", (1, *self.largest[1:]))
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        here = {}
        for name in names:
            kind, shape = np.dtype(kinds(engine.get_tensor_dtype(name))).name, [1]
            _, most = wanted.get(name, ("", ()))
            sizes = tuple(engine.get_tensor_shape(name))[1:]
            for size, expected in itertools.zip_longest(sizes, most[1:]):
                shape.append(expected if size == -1 else size)  # -1: open until a batch is there
            here[name] = (kind, tuple(shape))
        if here != wanted:
            raise BadInput(
                f"the engine's tensors are {_tensors(here)}",
                why=f"a detector's are {_tensors(wanted)}",
                fix=f"Build it again: {self._info.rebuild}",
            )

    def _rtx_config(self) -> IRuntimeConfig:
        """How TensorRT-RTX makes the contexts of all lanes.

        It compiles kernels for a shape when it first sees that shape. "Eager" has it compile within
        the first run rather than beside the later ones, which could then not be captured. All
        contexts share one cache, so each kernel is compiled once.
        """
        trt, config = self._trt, self._engine.create_runtime_config()
        self._cache = config.create_runtime_cache()  # the configuration only points at it
        self._parts.callback(setattr, self, "_cache", None)
        self._read_kernels(self._cache)
        config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        if not config.set_runtime_cache(self._cache):
            self._cache = None  # every context then compiles for itself
        return config

    def _read_kernels(self, cache: IRuntimeCache) -> None:
        """Fill the cache from the file; it refuses kernels of another GPU or version."""
        if self._kernels is not None and self._kernels.is_file():
            with contextlib.suppress(OSError):  # the file only saves time
                self._read = self._kernels.read_bytes()
                cache.deserialize(self._read)

    def _keep_kernels(self) -> None:
        if self._kernels is None or self._cache is None:
            return
        with contextlib.suppress(OSError, RuntimeError, RetinartError):  # it only saves time
            memory = self._cache.serialize()
            compiled = bytes(memoryview(memory))  # type: ignore[arg-type]  # it has the protocol
            if compiled != self._read:
                with new_folder(self._kernels.parent), atomic_path(self._kernels) as temporary:
                    temporary.write_bytes(compiled)


def _tensors(found: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(
        f"{name} ({'x'.join(map(str, ('N', *shape[1:])))} {kind})"
        for name, (kind, shape) in sorted(found.items())
    )
