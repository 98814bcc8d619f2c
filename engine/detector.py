"""The detector: images of any size in, detections in their pixels out, on any runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy.typing as npt

from retinart.engine.common.cpu_budget import cpu_budget
from retinart.engine.common.timing import StageClock
from retinart.engine.common.user_cache import user_cache
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.keep.keeper import Keeper, KeepingRunner
from retinart.engine.keep.rules import Keep
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import as_bgr
from retinart.engine.media.settings import StreamSettings
from retinart.engine.media.sources import check_files
from retinart.engine.model.info import Compute, ModelInfo, Thresholds, computed_in, read_info
from retinart.engine.runtime.options import (
    EngineOptions,
    ONNXRuntimeOptions,
    OpenVINOOptions,
    Options,
    RuntimeChoice,
    Tune,
)
from retinart.engine.runtime.runner import Runner, check_stricter
from retinart.engine.self_test.check import check_once
from retinart.engine.stream import Stream
from retinart.engine.tensorrt.engine_file import is_engine, read_engine_info
from retinart.engine.tiles.grid import Tiles
from retinart.engine.tiles.runner import TilingRunner

AnyImage: TypeAlias = npt.NDArray[Any]  # `as_bgr` converts it, or refuses it


def open_runner(path: Path, info: ModelInfo, thresholds: Thresholds, options: Options) -> Runner:
    """Load a model file on the runtime that its options are for.

    Args:
        path: an ONNX file, or an engine for `EngineOptions`.
        info: the file's metadata.
        thresholds: what counts as a detection.
        options: how to run it.

    Raises:
        BadInput: the file is damaged, or something does not fit it.
        MissingDependency: the runtime is not installed, or finds no GPU.
    """
    match options:
        case OpenVINOOptions():
            from retinart.engine.runtime.openvino_runner import OpenVINORunner

            return OpenVINORunner(path, info, thresholds, options)
        case ONNXRuntimeOptions():
            from retinart.engine.runtime.onnxruntime_runner import ONNXRuntimeRunner

            return ONNXRuntimeRunner(path, info, thresholds, options)
        case EngineOptions():
            from retinart.engine.tensorrt.runner import load_engine

            engine = dataclasses.replace(read_engine_info(path), model=info)
            return load_engine(path, engine, thresholds, options)


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
        keep: further rules that say which detections are kept; None keeps all.
        tiles: see each image in overlapping tiles as well, for small objects in large images; None
            sees it whole. An image then takes as many inferences as it has tiles, and one more.
        imgsz: shorter side in pixels, for files with dynamic sizes; None takes the file's.
        device: OpenVINO device; for an engine the GPU, "cuda:0" and so on; for ONNX Runtime "CPU",
            or one of its providers for NVIDIA's GPUs: "cuda", "tensorrt" or "tensorrt-rtx". With
            `runtime="auto"`, "cuda" makes an engine of an ONNX file on first use, which takes
            minutes, and keeps it.
        compute: what OpenVINO computes the network's float layers in. "fp32" takes Winograd's
            algorithm where that is faster, in FP32 files of fixed size on a CPU; "fp32-direct" does
            not, and needs less memory. "bf16" takes about two thirds of the time of "fp32" on CPUs
            that have instructions for it, at the cost of a little accuracy. INT8 layers stay as
            they are, and so do decoding and NMS. "auto" takes what is fastest here and loses no
            more than the file does: for INT8 files it times "fp32" and "bf16" once, and for others
            it is "fp32".
        tune: which convolutions take Winograd's algorithm. "on" times each size of convolution both
            ways, once on a machine; this takes a few seconds, and the times are kept for the CPU,
            OpenVINO's version and `threads`. "cached" takes the times that are kept, and a model of
            costs where there are none. "off" takes the model of costs.
        threads: inference threads. None gives as many as the affinity mask and the control
            group's quota allow, and leaves the choice to the runtime where nothing limits them.
        cache: keep what OpenVINO compiled for later starts, at most 2 GiB in all. A kept model is
            taken for the same content, device, settings, CPU and version.
        cache_dir: the folder for it, and for engines that are made on first use; None takes
            `retinart` in the user's caches. TensorRT-RTX keeps its compiled kernels there too, but
            only where a folder is given.
        throughput: OpenVINO: the highest rate of `stream` over files or of calls from several
            threads. A single call then takes longer, and so the frames of live sources get older.
        contexts: batches that an engine can have under way at once.
        graphs: capture an engine's work in CUDA graphs.
        gpu_resize: resize on the GPU, for engines; it pays off for large frames.
        check: run the file's self-test, once for each file, runtime, device and version on a
            machine, and refuse a file that is computed wrongly here.

    Attributes:
        info: the model's metadata.
        thresholds: what counts as a detection, as it is in force.
        precision: of the network's layers as they are computed: the file's, or with `compute` such
            as "bf16" or "int8+bf16".
        checked: what the self-test found, one line; "" without a check.

    Raises:
        BadInput: the file is missing, not ours, damaged, or a setting does not fit it.
        MissingDependency: the runtime is not installed.
        CheckFailed: this machine computes the file wrongly.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        runtime: RuntimeChoice = "auto",
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        keep: Keep | None = None,
        tiles: Tiles | None = None,
        imgsz: int | None = None,
        device: str | None = None,
        compute: Compute | Literal["auto"] = "fp32",
        tune: Tune = "cached",
        threads: int | None = None,
        cache: bool = True,
        cache_dir: str | Path | None = None,
        throughput: bool = False,
        contexts: int = EngineOptions.contexts,
        graphs: bool = True,
        gpu_resize: bool = False,
        check: bool = True,
    ) -> None:
        path = Path(model)
        built = is_engine(path)
        engine = built or (runtime == "auto" and _is_cuda(device))
        self.info: ModelInfo = read_engine_info(path).model if built else read_info(path)
        of_file = self.info
        if imgsz is not None:
            self.info = self.info.at_imgsz(imgsz)
        self.thresholds = self.info.thresholds.with_changes(conf=conf, iou=iou, max_det=max_det)
        keeper, of_runner = None, self.thresholds
        if keep is not None and not keep.all:
            keeper = Keeper(keep, self.info, self.thresholds)
            of_runner = dataclasses.replace(self.thresholds, score_thresh=keeper.least)
        if threads is None:
            threads = cpu_budget().threads
        auto = compute == "auto"
        compute = "fp32" if compute == "auto" else compute
        folder = None if cache_dir is None or not cache else Path(cache_dir)
        options: Options
        if engine:
            if compute != "fp32":
                raise _only_openvino(
                    path, compute, "an engine's precision was settled when it was built"
                )
            if gpu_resize and imgsz is not None:
                raise BadInput(
                    "imgsz and gpu_resize exclude each other",
                    fix="Leave gpu_resize out to choose a size",
                )
            if runtime != "auto":
                raise BadInput(f"{path} is an engine", fix=f"{runtime} runs its ONNX file")
            options = EngineOptions(
                gpu=_gpu_index(device),
                contexts=contexts,
                graphs=graphs,
                gpu_resize=gpu_resize,
                cache_dir=folder,
            )
        elif gpu_resize:
            raise BadInput(f"{path} is resized on the CPU", fix="Leave gpu_resize to engines")
        elif runtime == "onnxruntime":
            if compute != "fp32":
                raise _only_openvino(path, compute, "ONNX Runtime runs a file as it is")
            options = ONNXRuntimeOptions(device=device or "CPU", threads=threads)
        elif runtime in ("auto", "openvino"):
            options = OpenVINOOptions(
                device=device or "CPU",
                compute=compute,
                tune=tune,
                threads=threads,
                throughput=throughput,
                cache_dir=folder or (user_cache("compiled") if cache else None),
            )
            if auto:
                from retinart.engine.runtime.fastest import fastest_compute

                compute = fastest_compute(path, self.info, of_runner, options)
                options = dataclasses.replace(options, compute=compute)
        else:
            raise BadInput(
                f"unknown runtime {runtime!r}", fix="Choose auto, openvino or onnxruntime"
            )
        self.precision = computed_in(self.info.precision, compute)
        if engine and not built:
            check_stricter(of_runner, self.info.thresholds)  # before minutes of work
            if not cache:
                raise BadInput(
                    f"the engine of {path} is kept in the cache, and `cache` is off",
                    fix="Turn it on; or build an engine with `retinart build`, and give its path",
                )
            from retinart.engine.tensorrt.first_use import engine_for

            path = engine_for(path, _gpu_index(device), folder)
        self._runner: Runner | None = open_runner(path, self.info, of_runner, options)
        self.checked = ""
        if check:
            try:
                self.checked = check_once(
                    self._runner, of_file, self.precision, path, engine=engine
                )
            except BaseException:
                self.close()
                raise
        if tiles is not None:
            self._runner = TilingRunner(self._runner, tiles)
        if keeper is not None:
            self._runner = KeepingRunner(self._runner, keeper)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names that `class_id` indexes."""
        return self.info.classes

    @property
    def runner(self) -> Runner:
        """What runs the model.

        Raises:
            BadInput: the detector is closed.
        """
        if self._runner is None:
            raise BadInput("the detector is closed", fix="Make a new one")
        return self._runner

    @property
    def runtime(self) -> str:
        """Name of the runtime in use."""
        return self.runner.name

    @overload
    def __call__(self, images: AnyImage, *, clock: StageClock | None = None) -> Detections: ...

    @overload
    def __call__(
        self, images: Sequence[AnyImage], *, clock: StageClock | None = None
    ) -> list[Detections]: ...

    def __call__(
        self, images: AnyImage | Sequence[AnyImage], *, clock: StageClock | None = None
    ) -> Detections | list[Detections]:
        """Detect on one image or on a batch.

        Args:
            images: (H, W, 3) uint8 BGR, or a sequence of such images of any sizes. Grey, BGRA and
                uint16 images are converted.
            clock: gets the times of the stages resize, copy, infer, nms and results.

        Returns:
            Detections in pixels of each image, one object an image. Boxes are clipped to the image;
            a box that lies outside of it is left out.

        Raises:
            BadInput: an image of another type or shape.
        """
        if isinstance(images, Sequence):
            return self._detect(images, clock or StageClock())
        return self._detect([images], clock or StageClock())[0]

    def stream(
        self,
        source: str | Path | Sequence[str | Path],
        settings: StreamSettings | None = None,
    ) -> Iterator[tuple[Frame, Detections]]:
        """The frames of one source or several with their detections.

        Videos and images give every frame, in order. A webcam or a network stream gives the newest
        frame, so the age of frames does not grow. The stages run in threads, which end with the
        iteration. The rate over files is highest for a detector with `throughput=True`. That is a
        choice for the user, since the model is compiled for it, and single calls then take longer.

        Args:
            source: a video, image, folder, glob, webcam number such as "0", or address such as
                "rtsp://host/path"; several are batched together.
            settings: which frames, how patient live sources are, and how many frames may wait.

        Yields:
            A frame, whose `image` is (H, W, 3) uint8 BGR, and its detections in its pixels.

        Raises:
            BadInput: a file that cannot be opened, a webcam that is not there, a live source of
                which nothing arrived, or a setting that makes no sense.
        """
        names = [str(s) for s in ([source] if isinstance(source, str | Path) else source)]
        settings = settings or StreamSettings()
        check_files(names)
        with Stream(self.runner, names, settings) as stream:
            for step in stream:
                yield from zip(step.frames, step.found, strict=True)
            stream.sources.check_received()

    def close(self) -> None:
        """Give back what the runtime holds. The detector cannot be used any more."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _detect(self, images: Sequence[AnyImage], clock: StageClock) -> list[Detections]:
        runner = self.runner
        if not len(images):
            return []
        with clock("resize"):
            frames = [as_bgr(image) for image in images]
            groups = self.info.resize.groups(frames)
            prepared = [runner.prepare([frames[i] for i in group]) for group in groups]
        found: dict[int, Detections] = {}
        for group, batch in zip(groups, prepared, strict=True):
            found |= zip(group, batch.submit(clock).result(), strict=True)
        return [found[i] for i in range(len(frames))]


def _only_openvino(path: Path, compute: Compute, why: str) -> BadInput:
    return BadInput(
        f"only OpenVINO computes {path} in {compute}", why=why, fix="Leave compute at fp32"
    )


def _is_cuda(device: str | None) -> bool:
    return device is not None and device.lower().partition(":")[0] == "cuda"


def _gpu_index(device: str | None) -> int:
    """The number in "cuda:1"; 0 when no device is named."""
    kind, _, number = (device or "cuda:0").partition(":")
    if kind.lower() not in ("cuda", "gpu") or not (number or "0").isdecimal():
        raise BadInput(f"an engine runs on no device {device!r}", fix="Give cuda:0 or cuda:1")
    return int(number or 0)
