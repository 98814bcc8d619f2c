"""A setting that models are timed in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retinart.engine.model.info import Compute


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
