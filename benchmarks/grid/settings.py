"""What the grid measures, and against whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinart.engine.errors import CheckFailed

PEER = "torchvision eager"


@dataclass(frozen=True, kw_only=True)
class GridSettings:
    """What to measure; see the command line for each."""

    images: str
    backbones: tuple[str, ...]
    imgsz: tuple[int, ...]
    num_images: int
    repeats: int
    threads: int
    calibration_num: int
    num_classes: int
    work: Path
    peers: Path


def the_peer(timing: dict[str, Any]) -> dict[str, Any]:
    """The peer's row of a timing.

    Raises:
        CheckFailed: torchvision was left out, with the reason.
    """
    rows: list[dict[str, Any]] = timing["peers"]
    if [row["peer"] for row in rows] != [PEER]:
        why = "; ".join(f"{p['name']}: {p['why']}" for p in timing["left_out"])
        raise CheckFailed(
            f"the grid is against {PEER}, which was not measured",
            why=why or "the timing has no such row",
            fix="Mend what is said there and run the same command again",
        )
    return rows[0]
