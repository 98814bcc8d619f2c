"""Settings of an export, and of the build of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retinart.engine.errors import BadInput
from retinart.engine.model.info import Precision
from retinart.engine.tensorrt.api import EngineRuntime
from retinart.engine.tensorrt.engine_file import NmsForm

DEFAULT_IMGSZ = 600
Tiling = Literal["none", "fast", "moderate", "full"]
HardwareCompatible = Literal["none", "same", "ampere"]


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What to export.

    Attributes:
        imgsz: length that an image's shorter side is resized to. Without a height and a width, the
            input is 4:3 and its shorter side has this length. For None, it has the size of the
            training where the checkpoint is of retinart, and DEFAULT_IMGSZ elsewhere.
        height, width: a fixed input of this size; give both or neither. Without an imgsz, an image
            fills it as far as its aspect allows.
        dynamic: the input's height and width follow each image.
        conf, iou: score and NMS thresholds to build in; None for the defaults of `Thresholds`.
        max_det: most detections of an image; None for the number that the project keeps.
        topk_candidates: most anchors that a level passes on; NMS takes five times as many pairs of
            anchor and class. None for 1000, as all projects have it.
        classes: names that replace the checkpoint's.
        drop_classes: classes that the file leaves out, so that its network computes less:
            "unused", those that are known to be never predicted; "none"; or indices and names,
            separated by commas.
        images: folder, file or glob of images on which the file is compared with PyTorch; None for
            synthetic ones.
        variant: fields of `Variant` as "name=value", for what the checkpoint's tensors leave open.
        tensorrt: build the graph with TensorRT-RTX where that is installed.
    """

    imgsz: int | None = None
    height: int | None = None
    width: int | None = None
    dynamic: bool = False
    conf: float | None = None
    iou: float | None = None
    max_det: int | None = None
    topk_candidates: int | None = None
    classes: tuple[str, ...] | None = None
    drop_classes: str = "unused"
    images: str | None = None
    variant: tuple[str, ...] = ()
    tensorrt: bool = True

    def __post_init__(self) -> None:
        if (self.height is None) != (self.width is None):
            raise BadInput(
                "only one of `height` and `width` is given", fix="Give both, or `imgsz` alone"
            )
        for name in ("imgsz", "height", "width"):
            value = getattr(self, name)
            if value is not None and not 32 <= value <= 8192:
                raise BadInput(f"`{name}` is {value}", fix="Give 32 to 8192 pixels")
        if self.dynamic and self.height is not None:
            raise BadInput(
                "`dynamic` and a fixed `height` and `width` exclude each other",
                fix="Give `imgsz` with `dynamic`",
            )


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How to build.

    Attributes:
        runtime: the runtime that the engine is for. "auto" takes TensorRT if it is installed and
            there is a GPU, or else TensorRT-RTX.
        batch: smallest, optimal and largest.
        precision: the precision that the file must have; None takes any. A build never changes it.
        timing_cache: a file to read, and to write again with the timings of this build.
        workspace: GiB of GPU memory that a layer may use.
        optimization_level: 0 to 5.
        timing_iterations: runs of each kernel that are averaged.
        tiling: how hard to look for layers that share the L2 cache.
        device: the driver's number of the GPU to build on, and for.
        compute_capability: the GPUs that an engine of TensorRT-RTX is for, such as "8.9"; without
            any, all that it knows from Ampere on.
        version_compatible: see `EngineInfo`.
        hardware_compatible: other GPUs that run the engine: "none" surely; those of the "same"
            compute capability; or all from "ampere" on.
        nms: "plugin" is retinart's own, "efficient" is EfficientNMS_TRT, "graph" is the file's
            nodes. "auto" takes the first of them that the runtime has.
    """

    runtime: Literal["auto"] | EngineRuntime = "auto"
    batch: tuple[int, int, int] = (1, 1, 1)
    precision: Precision | None = None
    timing_cache: Path | None = None
    workspace: float | None = None
    optimization_level: int | None = None
    timing_iterations: int | None = None
    tiling: Tiling | None = None
    device: int = 0
    compute_capability: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatible: HardwareCompatible = "none"
    nms: Literal["auto"] | NmsForm = "auto"

    def __post_init__(self) -> None:
        low, best, high = self.batch
        if not 1 <= low <= best <= high <= 1024:
            raise BadInput(
                f"`batch` is {low} {best} {high}",
                fix="Give MIN OPT MAX with 1 <= MIN <= OPT <= MAX <= 1024",
            )
        if self.workspace is not None and not 0 < self.workspace <= 4096:
            raise BadInput(f"`workspace` is {self.workspace}", fix="Give GiB, above 0")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise BadInput(f"`optimization_level` is {self.optimization_level}", fix="Give 0 to 5")
        if self.timing_iterations is not None and not 1 <= self.timing_iterations <= 1000:
            raise BadInput(f"`timing_iterations` is {self.timing_iterations}", fix="Give 1 to 1000")
