"""What benchmarks measure; this imports no large package."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from retinart.engine.errors import BadInput
from retinart.engine.keep.rules import Keep
from retinart.engine.model.info import Compute

PEERS = ("torchvision", "torch-compile", "onnxruntime", "torch-compile-fp16")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One combination of the values that `BenchmarkSettings` lists."""

    imgsz: int | None
    batch: int
    streams: int

    def name(self, path: Path, compute: Compute) -> str:
        """What tables call a model in this setting."""
        parts = [path.name]
        parts += [f"in {compute}"] if compute != "fp32" else []
        parts += [f"at {self.imgsz}"] if self.imgsz else []
        parts += [f"batch {self.batch}"] if self.batch > 1 else []
        parts += [f"{self.streams} streams"] if self.streams > 1 else []
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How models are timed.

    Attributes:
        compute: what float layers are computed in, each of these; see `Detector`.
        peers: names of peers to time beside a model.
        torchvision: folder that torchvision is imported from; None leaves it out, since a folder of
            the working directory is imported only if it is named.
        num_images: images to time on.
        repeats: runs of every image.
        threads: of each runtime.
    """

    compute: tuple[Compute, ...] = ("fp32",)
    peers: tuple[str, ...] = ()
    torchvision: Path | None = None
    num_images: int = 16
    repeats: int = 5
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("num_images", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise BadInput(f"`{name}` is {getattr(self, name)}", fix="Give at least 1")
        for name in ("compute", "peers"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise BadInput(f"`{name}` is {', '.join(values)}", fix="Give each of them once")
        for name in self.peers:
            if name not in PEERS:
                raise BadInput(f"there is no peer {name!r}", fix=f"Known are {', '.join(PEERS)}")


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(RunSettings):
    """What `retinart benchmark` measures.

    Attributes:
        images: folder, file or glob of real images, on which NMS works as in use; None draws
            scenes.
        annotations: COCO instances of the folder, to measure AP on; None measures no AP.
        imgsz: shorter sides, for files with dynamic sizes; empty takes the file's own.
        batch: images in a call, each of these.
        streams: calls at once, each in a thread, each of these.
        checkpoint: that the first model was exported from, for peers in PyTorch.
        conf, keep: what counts as a detection; see `Detector`.
    """

    images: str | None = None
    annotations: Path | None = None
    imgsz: tuple[int, ...] = ()
    batch: tuple[int, ...] = (1,)
    streams: tuple[int, ...] = (1,)
    checkpoint: Path | None = None
    conf: float | None = None
    keep: Keep | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("imgsz", 8192), ("batch", 1024), ("streams", 64)):
            values = getattr(self, name)
            if len(set(values)) < len(values) or any(not 1 <= v <= most for v in values):
                raise BadInput(
                    f"`{name}` is {', '.join(map(str, values))}",
                    fix=f"Give values from 1 to {most}, each once",
                )
        if self.peers and (self.batch, self.streams) != ((1,), (1,)):
            raise BadInput("peers run one image at a time", fix="Leave out `batch` and `streams`")
        if self.peers and (self.conf is not None or self.keep is not None):
            raise BadInput("peers keep all detections", fix="Leave out `peers`, or all rules")
        if self.annotations is not None and not (self.images and Path(self.images).is_dir()):
            raise BadInput(
                f"{self.annotations} is given without the folder of its images",
                fix="Give the folder with `images`",
            )

    @property
    def settings(self) -> list[Setting]:
        """The combinations of `imgsz`, `batch` and `streams`."""
        values = itertools.product(self.imgsz or (None,), self.batch, self.streams)
        return [Setting(imgsz=i, batch=b, streams=s) for i, b, s in values]

    def rows(self, models: Sequence[Path]) -> list[tuple[Setting, Path, Compute]]:
        """The rows that models get."""
        return list(itertools.product(self.settings, models, self.compute))


@dataclass(frozen=True, kw_only=True)
class CurveSettings(RunSettings):
    """What `retinart curve` measures.

    Attributes:
        images: folder of the annotated images; the first of them are timed.
        annotations: COCO instances.
        imgsz: shorter sides in pixels; inputs are 4:3, as `retinart export --imgsz` makes them.
        calibration_images: folder, file or glob to take INT8's ranges from.
        calibration_listed_in: COCO file; only the images that it lists are taken. None takes all.
        calibration_num: how many of them; None as in `CalibrationSettings`.
        precisions: of files.
    """

    images: Path
    annotations: Path
    imgsz: tuple[int, ...] = (400, 500, 600, 700, 800)
    calibration_images: str | None = None
    calibration_listed_in: Path | None = None
    calibration_num: int | None = None
    precisions: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("imgsz", "precisions", "compute"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise BadInput(f"`{name}` is {list(values)}", fix="Give each value once")
        if "int8" in self.precisions and self.calibration_images is None:
            raise BadInput(
                "INT8 needs images to take ranges from",
                fix="Give `calibration_images`, or fp32 as the only one of `precisions`",
            )
        if not (self.images.is_dir() and self.annotations.exists()):
            missing = self.annotations if self.images.is_dir() else self.images
            raise BadInput(f"there is no {missing}", fix="Check `images` and `annotations`")

    def timing(self, checkpoint: Path) -> BenchmarkSettings:
        """How a checkpoint's files are timed."""
        same: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(RunSettings)}
        given = checkpoint if self.peers else None
        return BenchmarkSettings(images=str(self.images), checkpoint=given, **same)
