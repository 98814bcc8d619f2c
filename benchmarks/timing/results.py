"""What a benchmark found: the records that `benchmark.json` holds. Times are in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from retinart.benchmarks.timing.machine import Machine
from retinart.benchmarks.timing.peaks import Peaks
from retinart.benchmarks.timing.statistics import Estimate
from retinart.engine.common.timing import StageName
from retinart.engine.model.info import Compute

STAGES: tuple[StageName, ...] = ("total", "decode", "resize", "copy", "infer", "nms", "results")


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, ms: Sequence[float]) -> Percentiles:
        """The percentiles of some times."""
        p50, p90, p99 = (float(v) for v in np.percentile(ms, (50, 90, 99)))
        return cls(p50=p50, p90=p90, p99=p99)

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p90:.1f} / {self.p99:.1f}"


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long a contestant took for an image.

    Attributes:
        imgsz: the shorter side that images were resized to; None is the file's own.
        input: (height, width) of the network's input for most images.
        inputs: number of different inputs.
        ms, runs_ms: by stage, over all calls and of each call.
        detections: an image, as a mean.
        first_ms: of the first inference after loading.
        peak_mib: the most memory that its process held.
    """

    imgsz: int | None
    input: tuple[int, int]
    inputs: int
    ms: dict[str, Percentiles]
    runs_ms: dict[str, tuple[float, ...]]
    images_per_second: float
    detections: float
    load_ms: float
    first_ms: float
    peak_mib: float


@dataclass(frozen=True, kw_only=True)
class ModelTimes(Times):
    """A model file in one setting.

    Attributes:
        model: the name of the row: the file's, and what is special in the setting.
        precision: that its layers are computed in.
        times_as_fast_as_first: than the first model in the same setting.
        times_as_fast_as: by the name of the peer.
        gmac, gvalues: 10^9 multiply-accumulates of the convolutions, and numbers that these read
            and write, an image.
        share_of_peak, share_of_bandwidth: of the machine's arithmetic and of a GPU's memory.
        ap, ap50: on the annotated images, 0 to 1.
    """

    model: str
    file: str
    sha256: str
    precision: str
    compute: Compute
    batch: int
    streams: int
    times_as_fast_as_first: Estimate
    times_as_fast_as: dict[str, Estimate]
    gmac: float | None = None
    gvalues: float | None = None
    share_of_peak: float | None = None
    share_of_bandwidth: float | None = None
    ap: float | None = None
    ap50: float | None = None

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.model


@dataclass(frozen=True, kw_only=True)
class PeerTimes(Times):
    """A peer by its name, and what it is in a sentence without a full stop."""

    peer: str
    what: str

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.peer if self.imgsz is None else f"{self.peer} at {self.imgsz}"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A peer or a row that is not measured, and why."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class StageRatio:
    """A row's stage over the older one.

    Attributes:
        judged: it is the total, or holds enough of it: `regression.SMALLEST_SHARE`.
        slower: it is judged, and its whole interval is too high.
    """

    model: str
    stage: str
    old_ms: float
    new_ms: float
    ratio: Estimate
    slower: bool
    judged: bool = True


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A benchmark against an older one: each stage, and a line for each other change."""

    max_ratio: float
    ratios: tuple[StageRatio, ...]
    differences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All that `retinart benchmark` found.

    Attributes:
        drawn: the images are drawn scenes.
        peak_gops, gpu_peak_gops: of the CPU, and of the GPU where a model ran on one.
        reference_ms, noise: times of the reference workload, and their spread.
        command: that reproduces it.
    """

    SCHEMA: ClassVar[int] = 1
    AGAIN: ClassVar[str] = "Run the benchmark again with this version"

    what: str
    drawn: bool
    images: tuple[str, ...]
    repeats: int
    threads: int
    machine: Machine
    peak_gops: Peaks
    gpu_peak_gops: Peaks | None
    reference_ms: tuple[float, ...]
    noise: float
    models: tuple[ModelTimes, ...]
    peers: tuple[PeerTimes, ...]
    left_out: tuple[LeftOut, ...]
    command: str = ""
    comparison: Comparison | None = None

    @property
    def rows(self) -> tuple[ModelTimes | PeerTimes, ...]:
        """The models and then the peers."""
        return self.models + self.peers
