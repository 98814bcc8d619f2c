"""ONNX Runtime: it runs the file exactly as it is written, NMS included."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput, MissingDependency, RetinartError
from retinart.engine.media.images import Image
from retinart.engine.model.info import INPUT, OUTPUTS, REEXPORT, ModelInfo, Thresholds
from retinart.engine.model.onnx_bytes import with_outputs
from retinart.engine.runtime.native_errors import explained
from retinart.engine.runtime.options import ONNXRuntimeOptions
from retinart.engine.runtime.runner import (
    Finish,
    Floats,
    Prepared,
    check_stricter,
    from_outputs,
    last_line,
)

_PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}


class ONNXRuntimeRunner:
    """A model on ONNX Runtime, with the NMS that is written in the file.

    That NMS clips boxes to the frame, padding included: see the top of `runner.py`.

    Args:
        path: the ONNX file.
        info: its metadata.
        thresholds: what counts as a detection; they can only be stricter than the file's.
        options: see `ONNXRuntimeOptions`.
    """

    name = "onnxruntime"
    max_in_flight = 1

    def __init__(
        self, path: Path, info: ModelInfo, thresholds: Thresholds, options: ONNXRuntimeOptions
    ) -> None:
        check_stricter(thresholds, info.thresholds)
        self._open = partial(
            open_session,
            threads=options.threads,
            # of FP8, version 1.31 fused nodes to ones with other results: noise over signal was 3.3
            optimise=not info.precision.startswith("fp8"),
            left_out=_left_out(info),
            device=options.device,
        )
        try:
            self._session = self._open(path)
        except RetinartError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common public base
            raise BadInput(
                f"ONNX Runtime cannot load {path}", why=last_line(error), fix=REEXPORT
            ) from error
        self._path = path
        on = () if options.device.upper() == "CPU" else (options.device.lower(),)
        self.identity: tuple[str, ...] = (self.name, runtime_version(), *on)
        self.info, self.thresholds = info, thresholds

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """See `Runner`."""
        frames, resized = self.info.resize.apply(images)
        return Prepared(partial(self.start, frames), resized)

    def start(self, frames: Image, clock: StageClock) -> Finish:
        """Start a batch (N, H, W, 3) uint8 BGR at the network's size."""

        def finish() -> list[Detections]:
            with clock("infer"), explained("ONNX Runtime", self._path, "run"):
                outputs = self._session.run(list(OUTPUTS), {INPUT: frames})
            count, boxes, scores, labels = outputs
            if not ((labels >= 0) & (labels < len(self.info.classes))).all():
                raise BadInput(f"{self._path} gives classes without names", fix=REEXPORT)
            return from_outputs(count, boxes, scores, labels, self.thresholds)

        return finish

    def tensors(self, names: Sequence[str], frames: Image) -> dict[str, Floats]:
        """See `Runner`."""
        with explained("ONNX Runtime", self._path, "check"):
            session = self._open(with_outputs(self._path.read_bytes(), names))
            found = session.run(list(names), {INPUT: frames})
        return {n: np.asarray(v, np.float32) for n, v in zip(names, found, strict=True)}

    def close(self) -> None:
        """See `Runner`."""


def open_session(
    model: Path | bytes,
    *,
    threads: int | None = None,
    optimise: bool = True,
    left_out: Sequence[str] = (),
    device: str = "CPU",
) -> Any:
    """An ONNX Runtime session.

    Args:
        model: an ONNX file, or its bytes.
        threads: inference threads; None leaves the choice to ONNX Runtime.
        optimise: fuse nodes; otherwise each is computed in float as it is written.
        left_out: names of optimisations to leave out.
        device: see `ONNXRuntimeOptions`.

    Raises:
        BadInput: ONNX Runtime has no such device.
        MissingDependency: ONNX Runtime is not installed, or lacks the device's provider.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency.package(
            "onnxruntime", "onnxruntime", "Running on ONNX Runtime"
        ) from error
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # its errors are raised too, and its lines hold colours
    if not optimise:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads is not None:
        settings.intra_op_num_threads = threads
    wanted = _providers(onnxruntime, device)
    session = onnxruntime.InferenceSession(
        model, settings, providers=wanted, disabled_optimizers=list(left_out)
    )
    # ONNX Runtime only warns of a provider that does not start, and runs on the CPU
    if (first := wanted[0][0]) not in session.get_providers():
        raise MissingDependency(
            f"ONNX Runtime's {first} does not start here",
            why="a library that it needs is missing, or there is no GPU that it can use",
            fix="Install what its page in ONNX Runtime's documentation names, or leave the device "
            "out to run on the CPU",
        )
    return session


def _providers(onnxruntime: Any, device: str) -> list[tuple[str, dict[str, str]]]:
    """The provider of a device, and after it the CPU's, which takes what the other one leaves."""
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    kind, _, number = device.lower().partition(":")
    if kind == "cpu":
        return [cpu]
    if kind not in _PROVIDERS or not (number or "0").isdecimal():
        raise BadInput(
            f"ONNX Runtime has no device {device!r}",
            fix=f"Choose CPU, {', '.join(_PROVIDERS)}, or with a number, such as cuda:1",
        )
    provider = _PROVIDERS[kind]
    if provider not in (here := onnxruntime.get_available_providers()):
        raise MissingDependency(
            f"this ONNX Runtime has no {provider}",
            why=f"version {onnxruntime.__version__} has {', '.join(here)}",
            fix="Install `onnxruntime-gpu` in place of `onnxruntime`, for cuda and tensorrt; or "
            "run an engine of `retinart build`",
        )
    return [(provider, {"device_id": number or "0"}), cpu]


def runtime_version() -> str:
    """Of the ONNX Runtime that is imported; its package has several names."""
    import onnxruntime

    return str(onnxruntime.__version__)


def _left_out(info: ModelInfo) -> tuple[str, ...]:
    """Optimisations that compute a file wrongly.

    ONNX Runtime 1.31 quantizes a convolution's bias by the product of two scales. In a file of INT8
    and FP16 that product is an FP16 number, which underflows: noise over signal was 0.47.
    """
    return ("WeightBiasQuantization",) if info.precision == "int8+fp16" else ()
