"""Which peers to look for; this imports no large package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retinart.engine.errors import BadInput

NAMES = ("torchvision", "torch-compile", "onnxruntime", "torch-compile-fp16")


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """Which peers to look for.

    Attributes:
        names: of `NAMES`.
        checkpoint: that the model was exported from, for peers in PyTorch.
        folder: where torchvision is imported from, see `benchmarks.peers.torchvision_shim`.
        threads: of each.
    """

    names: tuple[str, ...]
    checkpoint: Path | None
    folder: Path
    threads: int

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in NAMES:
                raise BadInput(f"there is no peer {name!r}", fix=f"Known are {', '.join(NAMES)}")
