"""One process or several started by `torchrun`, behind the few operations that training needs."""

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

# the other processes wait while the first one measures AP
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes that share each step.

    Attributes:
        rank: number of this process, from 0.
        count: how many there are.
        device: this process's.
    """

    rank: int = 0
    count: int = 1
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes; the same everywhere."""
        if self.count == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's part of a step."""
        return items[self.rank :: self.count]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


def process_count() -> int:
    """The number of processes that `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether `torchrun` gave this process the first rank; True without it."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """Join the processes of this run, and leave them at the end.

    Args:
        device: "cuda" gives each local process a GPU of its own; others are taken as they are.
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
