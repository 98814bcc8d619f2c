"""The detector: images of any size in, detections in their pixels out, on any runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from retinart.engine.common.cpu_budget import cpu_budget
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image, as_bgr
from retinart.engine.model.info import COMPUTE, Compute, ModelInfo, computed_in, read_info
from retinart.engine.model.resized import Resized
from retinart.engine.runtime.onnxruntime_runner import ONNXRuntimeRunner
from retinart.engine.runtime.openvino_runner import OpenVINORunner
from retinart.engine.runtime.runner import Finish, Runner, check_stricter
from retinart.engine.stream import Batch, Stream, StreamSettings
from retinart.engine.tensorrt.engine_file import is_engine, read_engine_info
from retinart.engine.tensorrt.gpu_resize import plan_resize
from retinart.engine.tensorrt.runner import CONTEXTS, TensorRTRunner, load_engine

MAX_THREADS = 1024  # ONNX Runtime hangs when it is asked for many thousands
RuntimeName = Literal["auto", "openvino", "onnxruntime"]


class Detector:
    """An exported model, ready to detect. Several threads may call one detector at once.

        with Detector("model.onnx") as detect:
            found = detect(cv2.imread("image.jpg"))

    Args:
        model: the file that `retinart export` or `retinart build` wrote.
        runtime: "openvino" (what "auto" takes for ONNX) or "onnxruntime"; an engine has its own.
        conf: keep detections that score higher; None takes the file's threshold.
        iou: NMS threshold; None takes the file's.
        max_det: detections an image at most; None takes the file's.
        imgsz: shorter side in pixels, for files with dynamic sizes; None takes the file's.
        device: OpenVINO device; for an engine the GPU, "cuda:0" and so on.
        compute: what OpenVINO computes the network's float layers in. "fp32" takes Winograd's
            algorithm where that is faster, in FP32 files of fixed size on a CPU; "fp32-direct" does
            not, and needs less memory. "bf16" takes about two thirds of the time of "fp32" on CPUs
            that have instructions for it, at the cost of a little accuracy. INT8 layers stay as
            they are, and so do decoding and NMS.
        threads: inference threads. None gives as many as the affinity mask and the control
            group's quota allow, and leaves the choice to the runtime where nothing limits them.
        cache_dir: where OpenVINO keeps compiled models, and TensorRT-RTX its compiled kernels,
            between starts; None for nowhere.
        throughput: OpenVINO: the highest rate of a stream of files or of several threads, where a
            single call takes longer. Not for live sources, whose frames should get old as little
            as can be.
        contexts: batches that an engine can have under way at once.
        graphs: capture an engine's work in CUDA graphs.
        gpu_resize: resize on the GPU, which is for large frames; engines only.

    Attributes:
        info: the model's metadata.
        thresholds: those in force.
        precision: of the network's layers as they are computed: the file's, or with `compute` such
            as "bf16" or "int8+bf16".

    Raises:
        BadInput: the file is missing, not ours, damaged, or a setting does not fit it.
        MissingDependency: the runtime is not installed.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        runtime: RuntimeName = "auto",
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        imgsz: int | None = None,
        device: str | None = None,
        compute: Compute = "fp32",
        threads: int | None = None,
        cache_dir: str | Path | None = None,
        throughput: bool = False,
        contexts: int = CONTEXTS,
        graphs: bool = True,
        gpu_resize: bool = False,
    ) -> None:
        path = Path(model)
        engine = read_engine_info(path) if is_engine(path) else None
        self.info: ModelInfo = engine.model if engine else read_info(path)
        if imgsz is not None:
            self.info = self.info.at_imgsz(imgsz)
        wanted: dict[str, Any] = {
            "score_thresh": conf,
            "nms_thresh": iou,
            "detections_per_img": max_det,
        }
        self.thresholds = dataclasses.replace(
            self.info.thresholds, **{k: v for k, v in wanted.items() if v is not None}
        )
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise BadInput(
                f"threads is {threads}", fix=f"Give a whole number from 1 to {MAX_THREADS}"
            )
        if threads is None:
            threads = cpu_budget().threads
        if compute not in COMPUTE:
            raise BadInput(f"unknown compute {compute!r}", fix=f"Choose {', '.join(COMPUTE)}")
        if compute != "fp32" and (engine is not None or runtime == "onnxruntime"):
            raise BadInput(
                f"only OpenVINO computes {path} in {compute}",
                why="ONNX Runtime runs a file as it is"
                if engine is None
                else "an engine's precision was settled when it was built",
                fix="Leave compute at fp32",
            )
        self.precision = computed_in(self.info.precision, compute)
        cache = None if cache_dir is None else Path(cache_dir)
        self._runner: Runner | None
        if engine is not None:
            if gpu_resize and imgsz is not None:
                raise BadInput(
                    "imgsz and gpu_resize exclude each other",
                    fix="Leave gpu_resize out to choose a size",
                )
            if runtime != "auto":
                raise BadInput(f"{path} is an engine", fix=f"{runtime} runs its ONNX file")
            check_stricter(self.thresholds, self.info.thresholds)
            self._runner = load_engine(
                path,
                engine,
                gpu=_gpu_index(device),
                contexts=contexts,
                graphs=graphs,
                gpu_resize=gpu_resize,
                cache_dir=cache,
            )
            return
        if gpu_resize:
            raise BadInput(f"{path} is resized on the CPU", fix="Leave gpu_resize to engines")
        device = device or "CPU"
        if runtime in ("auto", "openvino"):
            self._runner = OpenVINORunner(
                path,
                self.info,
                device=device,
                compute=compute,
                threads=threads,
                throughput=throughput,
                cache_dir=cache,
            )
        elif runtime == "onnxruntime":
            if device.upper() != "CPU":
                raise BadInput(
                    f"the ONNX Runtime runner has no device {device!r}",
                    why="it runs on the CPU",
                    fix="Leave the device out, or use the OpenVINO runtime",
                )
            check_stricter(self.thresholds, self.info.thresholds)
            self._runner = ONNXRuntimeRunner(path, self.info, threads=threads)
        else:
            raise BadInput(
                f"unknown runtime {runtime!r}", fix="Choose auto, openvino or onnxruntime"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names that `class_id` indexes."""
        return self.info.classes

    @property
    def runtime(self) -> str:
        """Name of the runtime in use."""
        return self._open().name

    @overload
    def __call__(self, images: Image, *, clock: StageClock | None = None) -> Detections: ...

    @overload
    def __call__(
        self, images: Sequence[Image], *, clock: StageClock | None = None
    ) -> list[Detections]: ...

    def __call__(
        self, images: Image | Sequence[Image], *, clock: StageClock | None = None
    ) -> Detections | list[Detections]:
        """Detect on one image or on a batch.

        Args:
            images: (H, W, 3) uint8 BGR, or a sequence of such of any sizes. Grey, BGRA and uint16
                images are converted.
            clock: gets the times of the stages resize, infer, nms and results.

        Returns:
            Detections in pixels of each image, one object an image. Boxes are clipped to the image,
            and those that lie outside of it are left out.

        Raises:
            BadInput: an image of another type or shape.
        """
        if isinstance(images, Sequence):
            return self._detect(images, clock or StageClock())
        return self._detect([images], clock or StageClock())[0]

    @property
    def at_once(self) -> int:
        """Batches under way at once that give the highest rate."""
        return self._open().at_once

    def resize(self, images: Sequence[Image]) -> tuple[Batch, list[Resized]]:
        """The first part of a call: images as a batch of the network's size.

        Returns:
            The batch, (N, H, W, 3) uint8 BGR, or with `gpu_resize` the images as they are; and for
            each image the way back.
        """
        bgr, rule = [as_bgr(image) for image in images], self.info.resize
        runner = self._open()
        if isinstance(runner, TensorRTRunner) and runner.gpu_resize:
            return bgr, plan_resize(rule, bgr)
        return rule.apply(bgr)

    def start(self, batch: Batch, resized: list[Resized], clock: StageClock) -> Finish:
        """The second part: begin with what `resize` made.

        Returns:
            The third part, which waits and returns what a call does; once, on any thread.
        """
        runner = self._open()
        if isinstance(batch, list):
            assert isinstance(runner, TensorRTRunner)  # see `resize`
            finish = runner.start_images(batch, resized, self.thresholds, clock)
        else:
            finish = runner.start(batch, [r.size for r in resized], self.thresholds, clock)

        def finish_in_source() -> list[Detections]:
            found = finish()
            with clock("results"):
                return [r.detections_to_source(d) for d, r in zip(found, resized, strict=True)]

        return finish_in_source

    def infer(self, batch: Batch, resized: list[Resized], clock: StageClock) -> list[Detections]:
        """The second and third part at once."""
        return self.start(batch, resized, clock)()

    def stream(
        self,
        source: str | Path | Sequence[str | Path],
        settings: StreamSettings | None = None,
    ) -> Iterator[tuple[Frame, Detections]]:
        """The frames of one source or several with their detections.

        Of videos and images every frame comes, in order; of a webcam or a stream always the newest,
        so that the age of what comes does not grow. The steps run in threads; they end with the
        iteration.

        Args:
            source: a video, image, folder, glob, webcam number such as "0", or address such as
                "rtsp://host/path"; several are batched together.
            settings: which frames, how many may wait, how patient live sources are.

        Yields:
            A frame, whose `image` is (H, W, 3) uint8 BGR, and its detections in its pixels.

        Raises:
            BadInput: a file that cannot be opened, or a setting that makes no sense.
        """
        names = [source] if isinstance(source, str | Path) else source
        with Stream(self, [str(name) for name in names], settings or StreamSettings()) as stream:
            for step in stream:
                yield from zip(step.frames, step.found, strict=True)

    def close(self) -> None:
        """Give back what the runtime holds; the detector is of no more use."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> Runner:
        if self._runner is None:
            raise BadInput("the detector is closed", fix="Make a new one")
        return self._runner

    def _detect(self, images: Sequence[Image], clock: StageClock) -> list[Detections]:
        self._open()
        if not len(images):
            return []
        with clock("resize"):
            batch, resized = self.resize(images)
        return self.infer(batch, resized, clock)


def _gpu_index(device: str | None) -> int:
    """The number in "cuda:1"; 0 when no device is named."""
    kind, _, number = (device or "cuda:0").partition(":")
    if kind.lower() not in ("cuda", "gpu") or not (number or "0").isdecimal():
        raise BadInput(f"an engine runs on no device {device!r}", fix="Give cuda:0 or cuda:1")
    return int(number or 0)
