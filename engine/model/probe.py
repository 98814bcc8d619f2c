"""The probe that a model file carries: what its network answers to a picture that a rule draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

RULE = 1  # of the picture and the positions, see docs/self-test.md


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The answers of the referee, which computes the file in float, layer by layer.

    Attributes:
        rule: by which the picture and the positions are made.
        seed: of that rule.
        size: (height, width) of the picture, which the network takes as it is, not resized.
        graph_sha256: of the graph's bytes in the file.
        rounding: noise over signal of the raw outputs when INT8 weights lose one more bit. So far
            another machine may round; 0 for a float file.
        raw: values of each raw output of the network at the rule's positions.
        candidates: the best candidates, best first; x1, y1, x2, y2, score and class of each.
        detections: the detections at the file's thresholds, in the same form.
    """

    rule: int = RULE
    seed: int
    size: tuple[int, int]
    graph_sha256: str
    rounding: float
    raw: dict[str, tuple[float, ...]]
    candidates: tuple[tuple[float, ...], ...]
    detections: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        numbers = [self.rounding, *self.size, *(v for values in self.raw.values() for v in values)]
        for row in (*self.candidates, *self.detections):
            if len(row) != 6:
                raise ValueError(f"a row of the probe has {len(row)} values, and 6 are needed")
            numbers += row
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("the probe holds NaN or infinite values")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Probe:
        """Read what `dataclasses.asdict` gave, by way of JSON."""
        return cls(
            rule=int(data["rule"]),
            seed=int(data["seed"]),
            size=(int(data["size"][0]), int(data["size"][1])),
            graph_sha256=str(data["graph_sha256"]),
            rounding=float(data["rounding"]),
            raw={str(k): tuple(map(float, v)) for k, v in data["raw"].items()},
            candidates=tuple(tuple(map(float, row)) for row in data["candidates"]),
            detections=tuple(tuple(map(float, row)) for row in data["detections"]),
        )
