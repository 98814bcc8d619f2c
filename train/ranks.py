"""One process or many: what `torchrun` starts, behind the few operations that training needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

# the others wait while the first one measures AP
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes that share each step.

    Attributes:
        rank: this one, from 0.
        count: how many there are.
        device: this one's.
    """

    rank: int = 0
    count: int = 1
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and says something."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes; the same everywhere."""
        if self.count == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        """What each process has, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's part of a step."""
        return items[self.rank :: self.count]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


def process_count() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """The processes of this run, joined and left again.

    Args:
        device: "cuda" takes a GPU for each local process; anything else is taken as it is.
    """
    count = process_count()
    if count == 1:
        yield Ranks(device=torch.device(device))
        return
    chosen = torch.device(device)
    if device == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(rank=dist.get_rank(), count=dist.get_world_size(), device=chosen)
    finally:
        dist.destroy_process_group()
