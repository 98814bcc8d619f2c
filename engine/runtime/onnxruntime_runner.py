"""ONNX Runtime: it runs the file exactly as it is written, NMS included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.media.images import Image
from retinart.engine.model.info import INPUT, OUTPUTS, REEXPORT, ModelInfo, Thresholds
from retinart.engine.runtime.runner import Finish, check_stricter, from_outputs, last_line


class ONNXRuntimeRunner:
    """A model on ONNX Runtime's CPU provider, with the NMS that is written in the file.

    That NMS clips boxes to the frame, padding included: see the top of `runner.py`.

    Args:
        path: the ONNX file.
        info: its metadata.
        threads: inference threads; None leaves the choice to ONNX Runtime.
    """

    name = "onnxruntime"
    at_once = 1

    def __init__(self, path: Path, info: ModelInfo, *, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependency.package(
                "onnxruntime", "onnxruntime", "Running on ONNX Runtime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no public base
            raise BadInput(
                f"ONNX Runtime cannot load {path}", why=last_line(error), fix=REEXPORT
            ) from error
        self._built = info.thresholds

    def start(
        self,
        frames: Image,
        sizes: Sequence[tuple[int, int]],  # NMS in the file has no use for them
        thresholds: Thresholds,
        clock: StageClock,
    ) -> Finish:
        """See `Runner`. Thresholds can only be made stricter than those in the file."""
        check_stricter(thresholds, self._built)

        def finish() -> list[Detections]:
            with clock("infer"):
                count, boxes, scores, labels = self._session.run(list(OUTPUTS), {INPUT: frames})
            return from_outputs(count, boxes, scores, labels, thresholds)

        return finish

    def close(self) -> None:
        """See `Runner`."""
