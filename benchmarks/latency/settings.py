"""What a benchmark measures; this imports no large package."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retinart.benchmarks.peers.settings import PeerSettings
from retinart.benchmarks.timing.setting import Setting
from retinart.engine.errors import BadInput
from retinart.engine.model.info import Compute


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What to measure.

    Attributes:
        images: folder, file or glob of real images, on which NMS works as in use; None draws
            scenes.
        annotations: COCO instances of the folder, to measure AP on; None measures no AP.
        imgsz: shorter sides, for files with dynamic sizes; empty takes the file's own.
        batch: images in a call, each of these.
        streams: calls at once, each in a thread, each of these.
        compute: what float layers are computed in, each of these; see `Detector`.
        peers: names of peers to measure beside the first model; see `benchmarks.peers.find`.
        checkpoint: that this model was exported from, for peers in PyTorch.
        torchvision: folder that torchvision is imported from.
        num_images: how many of the images.
        repeats: runs of every image.
        threads: of each runtime.
    """

    images: str | None = None
    annotations: Path | None = None
    imgsz: tuple[int, ...] = ()
    batch: tuple[int, ...] = (1,)
    streams: tuple[int, ...] = (1,)
    compute: tuple[Compute, ...] = ("fp32",)
    peers: tuple[str, ...] = ()
    checkpoint: Path | None = None
    torchvision: Path = Path("build/peers")
    num_images: int = 16
    repeats: int = 5
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("num_images", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}", fix="Give at least 1")
        for name, most in (("imgsz", 8192), ("batch", 1024), ("streams", 64)):
            values = getattr(self, name)
            if len(set(values)) < len(values) or any(not 1 <= v <= most for v in values):
                raise BadInput(
                    f"{name} is {', '.join(map(str, values))}",
                    fix=f"Give values from 1 to {most}, each once",
                )
        for name in ("compute", "peers"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise BadInput(f"{name} is {', '.join(values)}", fix="Give each of them once")
        if self.peers and (self.batch, self.streams) != ((1,), (1,)):
            raise BadInput("peers run one image at a time", fix="Leave out --batch and --streams")
        if self.annotations is not None and self.images is None:
            raise BadInput(
                f"{self.annotations} is given without its images",
                fix="Give their folder with --images",
            )
        if self.annotations is not None and not Path(str(self.images)).is_dir():
            raise BadInput(
                f"{self.images} is not a folder", fix="With --annotations, --images is their folder"
            )

    @property
    def wanted_peers(self) -> PeerSettings:
        """Which peers to look for."""
        return PeerSettings(
            names=self.peers,
            checkpoint=self.checkpoint,
            folder=self.torchvision,
            threads=self.threads,
        )

    @property
    def settings(self) -> list[Setting]:
        """The combinations of `imgsz`, `batch` and `streams`."""
        values = itertools.product(self.imgsz or (None,), self.batch, self.streams)
        return [Setting(imgsz=i, batch=b, streams=s) for i, b, s in values]

    def row_names(self, models: Sequence[Path]) -> list[str]:
        """The names of the rows that models get."""
        return [
            setting.name(path, compute)
            for setting in self.settings
            for path in models
            for compute in self.compute
        ]
