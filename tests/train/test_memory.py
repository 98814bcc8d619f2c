"""Memory that is kept for the next step."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable

import pytest

from retinart.train.memory import kept_memory
from support import run_python

# In a process of its own: where the heap already has room for the block, freeing it gives nothing
# back.
PROGRAM = """
import json
from pathlib import Path
import numpy as np
from retinart.train.memory import kept_memory

SIZE = 128 << 20

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def shares():
    before = held()
    block = np.ones(SIZE, np.uint8)
    taken = held() - before
    del block
    return taken / SIZE, (held() - before) / SIZE

first = shares()
with kept_memory():
    within = shares()
print(json.dumps([first, within, shares()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory on request")
def test_freed_memory_is_kept_within_the_block_only() -> None:
    ran = run_python("-c", PROGRAM)
    assert ran.returncode == 0, ran.stderr
    (taken, first), (taken_within, within), (_, last) = json.loads(ran.stdout)
    assert taken > 0.9 and taken_within > 0.9
    assert first < 0.1 and within > 0.9 and last < 0.1


def test_other_systems_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Callable[[], tuple[str, str]] = lambda: ("", "")  # noqa: E731
    monkeypatch.setattr(platform, "libc_ver", other)
    with kept_memory():
        pass
