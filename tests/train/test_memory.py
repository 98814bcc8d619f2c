"""Memory that is kept for the next step."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from retinart.train.memory import kept_memory

SIZE = 128 << 20


def _still_held() -> int:
    """Bytes of a block of SIZE that the process holds after the block was freed."""

    def held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = held()
    block = torch.ones(SIZE, dtype=torch.uint8)
    assert held() - before > 0.9 * SIZE
    del block
    return held() - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory on request")
def test_freed_memory_is_kept_within_the_block_only() -> None:
    assert _still_held() < 0.1 * SIZE
    with kept_memory():
        assert _still_held() > 0.9 * SIZE
    assert _still_held() < 0.1 * SIZE


def test_other_systems_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Callable[[], tuple[str, str]] = lambda: ("", "")  # noqa: E731
    monkeypatch.setattr(platform, "libc_ver", other)
    with kept_memory():
        assert torch.ones(1).item() == 1
