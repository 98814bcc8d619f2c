"""The grid's points: a backbone at one scale in one precision against the peer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from retinart.benchmarks.latency.scales import Scale, Scales
from retinart.benchmarks.timing.peaks import Peaks
from retinart.benchmarks.timing.results import Benchmark, ModelTimes, PeerTimes
from retinart.benchmarks.timing.statistics import Estimate
from retinart.engine.errors import CheckFailed

PEER = "torchvision eager"
# the aim: times as fast as the peer, end to end
REACH = {"fp32": 1.35, "bf16": 1.35, "int8": 4.5, "int8+bf16": 4.5}


@dataclass(frozen=True)
class GridPoint:
    """A row of a scale's benchmark, the peer's row, and the best peaks of the grid."""

    scale: Scale
    model: ModelTimes
    peer: PeerTimes
    peaks: Peaks

    @property
    def ratio(self) -> Estimate:
        """Times as fast as the peer."""
        return self.model.times_as_fast_as[PEER]

    @property
    def reached(self) -> bool:
        """The ratio is the aim or above."""
        return self.ratio.value >= REACH[self.model.precision]

    @property
    def gmac(self) -> float:
        """10^9 multiply-accumulates an image."""
        assert self.model.gmac is not None  # the grid has no engines
        return self.model.gmac

    @property
    def ms_at_peak(self) -> float:
        """What infer would take at the machine's peak."""
        return 2 * self.gmac / self.peaks.of(self.model.precision) * 1000

    @property
    def share_of_peak(self) -> float:
        """Of the best peak of all timings, as a noisy moment can only lower one."""
        return self.ms_at_peak / self.model.ms["infer"].p50

    @property
    def ratio_at_peak(self) -> float:
        """What the ratio would be if infer reached the peak."""
        ms = self.model.ms
        return self.peer.ms["total"].p50 / (ms["total"].p50 - ms["infer"].p50 + self.ms_at_peak)


@dataclass(frozen=True, kw_only=True)
class Grid(Scales):
    """All that the grid found: each backbone and scale, and the command that reproduces it."""

    SCHEMA: ClassVar[int] = 1
    AGAIN: ClassVar[str] = "Run the grid again with this version"

    timings: tuple[Scale, ...]
    command: str = ""

    @property
    def first(self) -> Benchmark:
        """The first timing. All timings share its images, settings and machine."""
        return self.timings[0].benchmark

    @property
    def points(self) -> list[GridPoint]:
        """Each backbone at each scale in each precision."""
        return [
            GridPoint(scale, model, the_peer(scale.benchmark), self.peaks)
            for scale in self.timings
            for model in scale.benchmark.models
        ]


def the_peer(benchmark: Benchmark) -> PeerTimes:
    """The peer's row of a timing; CheckFailed with the reason where torchvision was left out."""
    if [row.peer for row in benchmark.peers] != [PEER]:
        why = "; ".join(f"{left.name}: {left.why}" for left in benchmark.left_out)
        raise CheckFailed(
            f"the grid is against {PEER}, which was not measured",
            why=why or "the timing has no such row",
            fix="Mend that and run the same command again",
        )
    return benchmark.peers[0]
