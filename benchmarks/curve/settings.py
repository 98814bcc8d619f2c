"""What a curve measures; this imports no large package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retinart.benchmarks.latency.settings import BenchmarkSettings
from retinart.engine.errors import BadInput
from retinart.engine.model.info import Compute


@dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """What to measure.

    Attributes:
        imgsz: shorter sides in pixels; inputs are 4:3, as `retinart export --imgsz` makes them.
        images: folder of the annotated images; the first of them are timed.
        annotations: COCO instances.
        calibration_images: folder, file or glob to take INT8's ranges from.
        calibration_num: how many of them.
        precisions: of files, "fp32" and "int8".
        compute: what float layers are computed in, each of these; see `Detector`.
        peers: names of peers to time beside the files of each checkpoint and scale.
        torchvision: folder that torchvision is imported from.
        num_images, repeats, threads: of the timing, as in `BenchmarkSettings`.
    """

    images: Path
    annotations: Path
    imgsz: tuple[int, ...] = (400, 500, 600, 700, 800)
    calibration_images: str | None = None
    calibration_num: int = 200
    precisions: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
    compute: tuple[Compute, ...] = ("fp32",)
    peers: tuple[str, ...] = ()
    torchvision: Path = Path("build/peers")
    num_images: int = 16
    repeats: int = 5
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("imgsz", "precisions", "compute"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise BadInput(f"{name} is {list(values)}", fix="Give each value once")
        _ = self.timing(None).wanted_peers  # these check the rest
        if "int8" in self.precisions and self.calibration_images is None:
            raise BadInput(
                "INT8 needs images to take ranges from",
                fix="Give --calibration-images, or --precisions fp32",
            )
        for path, there in ((self.images, self.images.is_dir()),
                            (self.annotations, self.annotations.is_file())):  # fmt: skip
            if not there:
                raise BadInput(f"there is no {path}", fix="Check --images and --annotations")

    def timing(self, checkpoint: Path | None) -> BenchmarkSettings:
        """How a checkpoint's files are timed."""
        return BenchmarkSettings(
            images=str(self.images), num_images=self.num_images, repeats=self.repeats,
            threads=self.threads, compute=self.compute, peers=self.peers, checkpoint=checkpoint,
            torchvision=self.torchvision,
        )  # fmt: skip
