"""ONNX Runtime: it runs the file exactly as it is written, NMS included."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.media.images import Image
from retinart.engine.model.info import INPUT, OUTPUTS, REEXPORT, ModelInfo, Thresholds
from retinart.engine.runtime.options import ONNXRuntimeOptions
from retinart.engine.runtime.runner import (
    Finish,
    Prepared,
    check_stricter,
    from_outputs,
    last_line,
)


class ONNXRuntimeRunner:
    """A model on ONNX Runtime's CPU provider, with the NMS that is written in the file.

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
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependency.package(
                "onnxruntime", "onnxruntime", "Running on ONNX Runtime"
            ) from error
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        if options.threads is not None:
            settings.intra_op_num_threads = options.threads
        try:
            self._session = onnxruntime.InferenceSession(
                path, settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no public base
            raise BadInput(
                f"ONNX Runtime cannot load {path}", why=last_line(error), fix=REEXPORT
            ) from error
        self.info, self._thresholds = info, thresholds

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """See `Runner`."""
        frames, resized = self.info.resize.apply(images)
        return Prepared(partial(self.start, frames), resized)

    def start(self, frames: Image, clock: StageClock) -> Finish:
        """Start a batch (N, H, W, 3) uint8 BGR at the network's size."""

        def finish() -> list[Detections]:
            with clock("infer"):
                count, boxes, scores, labels = self._session.run(list(OUTPUTS), {INPUT: frames})
            return from_outputs(count, boxes, scores, labels, self._thresholds)

        return finish

    def close(self) -> None:
        """See `Runner`."""
