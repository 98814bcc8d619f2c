"""Checkpoints at several scales: exports, INT8 files and timings, each a step that is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import or_
from pathlib import Path

from retinart.benchmarks.latency.run import benchmark
from retinart.benchmarks.peers.find import find_peers
from retinart.benchmarks.timing import machine
from retinart.benchmarks.timing.peaks import Peaks
from retinart.benchmarks.timing.results import Benchmark, LeftOut
from retinart.benchmarks.timing.settings import BenchmarkSettings
from retinart.benchmarks.timing.source_hash import TIMING, code_hash, hash_of
from retinart.benchmarks.timing.steps import Steps, code_of_models
from retinart.calib.calibrate import calibrate
from retinart.calib.observe import choose_images
from retinart.calib.settings import CalibrationSettings
from retinart.engine.common.files import sha256
from retinart.engine.media.images import list_images
from retinart.engine.model.info import read_info
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A checkpoint by name, the shorter side of its files' images, and the files' benchmark."""

    checkpoint: str
    imgsz: int
    benchmark: Benchmark

    @property
    def name(self) -> str:
        """For headings."""
        return f"{self.checkpoint} at {self.imgsz}"


class Scales:
    """What a curve and a grid have in common: the benchmarks of checkpoints at several scales."""

    timings: tuple[Scale, ...]

    @property
    def peaks(self) -> Peaks:
        """The best of all timings, as a noisy moment can only lower one."""
        return reduce(or_, (scale.benchmark.peak_gops for scale in self.timings))

    @property
    def noise(self) -> float:
        """The worst of all timings."""
        return max(scale.benchmark.noise for scale in self.timings)


class ScaleSteps:
    """Makes what a checkpoint at a scale needs.

    Args:
        steps: keep what is made.
        folder: of the model files.
        images, num, listed_in: that INT8 files take their ranges from, as in `CalibrationSettings`.
    """

    def __init__(
        self,
        steps: Steps,
        folder: Path,
        *,
        images: str | None,
        num: int | None,
        listed_in: Path | None = None,
    ) -> None:
        self.steps, self._folder = steps, folder
        self._images, self._num, self._listed_in = images, num, listed_in
        self.code = code_of_models()

    def fp32(self, checkpoint: Path, size: int) -> Path:
        """The FP32 file for a shorter side."""
        path = self._folder / f"{checkpoint.stem}-{size}.onnx"
        settings = ExportSettings(imgsz=size, tensorrt=False)
        inputs = {"checkpoint": sha256(checkpoint), "imgsz": size, **self.code}
        make = partial(export_checkpoint, checkpoint, path, settings)
        return self.steps.file("export", path, inputs, make)

    def int8(self, fp32: Path) -> Path:
        """The INT8 file of an FP32 file."""
        path = fp32.with_suffix(".int8.onnx")
        settings = CalibrationSettings(
            images=self._images, num=len(self._chosen), listed_in=self._listed_in
        )
        inputs = {"fp32": sha256(fp32), "images": hash_of(self._chosen), **self.code}
        return self.steps.file("calibrate", path, inputs, partial(calibrate, fp32, path, settings))

    @cached_property
    def _chosen(self) -> list[Path]:
        return choose_images(
            str(self._images), self._num, CalibrationSettings.seed, listed_in=self._listed_in
        )

    def time(
        self,
        checkpoint: Path,
        size: int,
        paths: Sequence[Path],
        settings: BenchmarkSettings,
        check: Callable[[Benchmark], object] = lambda found: None,
    ) -> Scale:
        """The benchmark of a checkpoint's files, which is not kept where `check` raises."""
        # with peers all images count, because those are chosen that every peer resizes as we do
        images = list_images(str(settings.images))
        peers = find_peers(paths[0], read_info(paths[0]), settings)
        inputs = {
            "models": [sha256(path) for path in paths],
            "images": hash_of(images if peers else images[: settings.num_images]),
            "peers": [[p.name, p.why if isinstance(p, LeftOut) else p.what] for p in peers],
            "settings": [settings.compute, settings.num_images, settings.repeats, settings.threads],
            "cpu": machine.describe().cpu, "timing": code_hash(TIMING), **self.code,
        }  # fmt: skip

        def make() -> Benchmark:
            found = benchmark(paths, settings)
            check(found)
            return found

        found = self.steps.record(Benchmark, "time", paths[0].name, inputs, make)
        return Scale(checkpoint=checkpoint.stem, imgsz=size, benchmark=found)

    def kept(self, checkpoint: Path, size: int) -> Iterator[Scale]:
        """All kept timings, also of older code, the latest first."""
        for found in self.steps.records(Benchmark, "time", f"{checkpoint.stem}-{size}.onnx"):
            yield Scale(checkpoint=checkpoint.stem, imgsz=size, benchmark=found)
