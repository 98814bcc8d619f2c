"""The probe that a model file carries: what its network answers to a picture that a rule draws."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

RULE = 1  # of the picture and the positions, see docs/self-test.md
POSITIONS = 32  # of each raw output
_LARGE = 1e30


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
    raw: dict[str, tuple[float, ...]] = field(repr=False)
    candidates: tuple[tuple[float, ...], ...] = field(repr=False)
    detections: tuple[tuple[float, ...], ...] = field(repr=False)

    def __post_init__(self) -> None:
        if self.rule != RULE:
            raise ValueError(f"the probe follows rule {self.rule}, and this version knows {RULE}")
        if not 0 <= self.seed < 2**32 or not re.fullmatch("[0-9a-f]{64}", self.graph_sha256):
            raise ValueError("the probe's seed or hash is damaged")
        numbers = [self.rounding, *self.size, *(v for values in self.raw.values() for v in values)]
        if any(len(values) != POSITIONS for values in self.raw.values()):
            raise ValueError(f"the probe does not hold {POSITIONS} values of each raw output")
        for row in (*self.candidates, *self.detections):
            if len(row) != 6:
                raise ValueError(f"a row of the probe has {len(row)} values, and 6 are needed")
            numbers += row
        if not all(abs(number) < _LARGE for number in numbers):  # False for NaN
            raise ValueError("the probe holds NaN, infinite or huge values")
